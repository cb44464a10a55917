# Every target works on a fresh checkout. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
# The order of the tests is random, and the same for everybody who tests the same commit.
SEED ?= $(shell printf '%d' "0x$$(git rev-parse --short=7 HEAD 2>/dev/null || echo 1)")

# What pytest makes of its plugins and of the tests is made once, not by every worker of every run.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-test run test test-fast check soak fuzz bench fmt lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what banger needs (system packages when root, .venv)
	@bash scripts/setup.sh

setup-test: ## the same, and what tests and linters need
	@bash scripts/setup.sh --test

run: setup ## run a command in a fresh VM: hello from its kernel
	@.venv/bin/banger vm run debian -- sh -c 'echo hello from $$(uname -sr)' || { code=$$?; \
		echo 'to see what works on this host, and what does not: .venv/bin/banger doctor --boot' >&2; exit $$code; }

test: setup-test check ## the whole suite, with real VMs (about 24 minutes on two cores)
	@$(PYTHON) -m pytest -n auto --durations=20 --randomly-seed=$(SEED)

test-fast: setup-test ## unit, actor and contract tests, but for slow ones (a minute and a half)
	@$(PYTHON) -m pytest -n auto --no-boot -m 'not slow' tests/unit tests/actors tests/contract

check: setup-test ## ruff, format, strict mypy, import rules, file sizes
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff check --preview --select PLW1514 banger  # text files are UTF-8, whatever the locale says
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) scripts/check_imports.py
	@$(PYTHON) scripts/check_sizes.py

soak: setup-test ## the long form of the random tests: owners, races, kills of the supervisor
	@HYPOTHESIS_PROFILE=soak LOGURU_LEVEL=ERROR $(PYTHON) -m pytest --timeout 3600 tests/actors \
		tests/integration/test_agent_session.py tests/integration/test_owners_no_room.py \
		tests/integration/test_crashes_on_host.py tests/integration/test_bootstrap.py tests/e2e/test_e2e_crashes.py tests/e2e/test_e2e_kills.py tests/e2e/test_e2e_copy.py \
		tests/e2e/test_e2e_testhost.py tests/e2e/test_e2e_reach.py

fuzz: setup-test ## feed the API, the layer reader and the guest agent with nonsense, ten minutes each; then other readers
	@FUZZ_SECONDS=600 LOGURU_LEVEL=ERROR $(PYTHON) -m pytest -s --no-boot --timeout 3600 tests/integration/test_api_fuzz.py
	@FUZZ_SECONDS=600 $(PYTHON) -m pytest -s --no-boot tests/unit/test_rootfs_fuzz.py -k fuzzed_for_a_while
	@FUZZ_SECONDS=600 $(PYTHON) -m pytest -s --no-boot tests/integration/test_agent_fuzz.py
	@FUZZ_SECONDS=600 LOGURU_LEVEL=ERROR $(PYTHON) -m pytest -s --no-boot tests/unit/test_agent_hostile.py -k fuzzed_for_a_while
	@HYPOTHESIS_PROFILE=soak $(PYTHON) -m pytest --no-boot --timeout 3600 tests/unit/test_rootfs_fuzz.py \
		tests/unit/test_rootfs_sparse.py tests/unit/test_bundle_manifest.py \
		tests/unit/test_ext4_reader_*.py tests/unit/test_bundle_sparse.py tests/unit/test_artifact_tree.py \
		tests/unit/test_kernels_lz4.py tests/unit/test_client_http1.py tests/unit/test_agent_wire.py tests/unit/test_agent_hostile.py \
		tests/unit/test_agent_facts.py \
		tests/integration/test_ext4_reader_fuzz.py \
		tests/integration/test_rootfs_random.py

bench: setup-test ## measure against peers; writes bench/latest.json
	@$(PYTHON) -m bench.run

fmt: setup-test ## format, and fix what the linter can fix
	@$(PYTHON) -m ruff check --fix-only .
	@$(PYTHON) -m ruff format .

lock: setup-test ## renew requirements/: the newest versions that pyproject.toml admits, with their hashes
	@bash scripts/lock.sh

clean: ## remove .venv, caches and build output (VMs and images stay)
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build bench/latest.json
	$(MAKE) --silent --directory guest-agent clean
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
