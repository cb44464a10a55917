"""Completion offers what fits in a place: verbs, options, their values, and names that the daemon knows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from banger.commands.completion import SCRIPTS, Names, candidates
from banger.layout import Layout
from tests.support.cli import ROOT, Cli
from tests.support.fake_api import FakeApi, image_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)


@pytest.fixture
def names(api: FakeApi) -> Names:
    api.on("GET", "/v1/vms", [vm_json("web"), vm_json("worker"), vm_json("db")])
    api.on("GET", "/v1/images", [image_json("python:3.12"), image_json("debian")])
    api.on("GET", "/v1/kernels", [])
    api.on("GET", "/v1/operations", [{"id": "0p", "kind": "vm.start"}])
    entry = {"source": "s", "summary": "Alpine", "origin": "shipped"}
    api.on(
        "GET", "/v1/catalog", {"images": [{"name": "alpine", **entry}], "kernels": [{"name": "debian-cloud", **entry}]}
    )
    drivers = [{"name": "firecracker", "version": version, "origin": "installed"} for version in ("1.16.1", "1.12.1")]
    api.on("GET", "/v1/drivers", [{"name": "qemu", "version": "7.2.22", "origin": "host"}, *drivers])
    return Names(Layout.from_environment())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("im", ["image"]),
        ("vm st", ["start", "stats", "stop"]),
        ("__", []),
        ("vm stop w", ["web", "worker"]),
        ("vm stop web w", ["web", "worker"]),
        ("vm stop web --label x=y d", ["db"]),
        ("vm ssh ", ["web", "worker", "db"]),
        ("vm ssh web ", []),
        ("run ", ["alpine", "python:3.12", "debian"]),
        ("run --cpus 2 py", ["python:3.12"]),
        ("run --kernel ", ["debian-cloud"]),
        ("run --network u", ["user"]),
        ("run alpine -- w", []),
        ("vm cp w", ["web:", "worker:"]),
        ("vm wait web --until r", ["running"]),
        ("vm logs --source ", ["console", "vmm"]),
        ("image show d", ["debian"]),
        ("image tag d", ["debian"]),
        ("image tag debian d", []),
        ("image push a", []),
        ("image export debian x --form o", ["oci"]),
        ("image lint debian --kernel ", []),
        ("image promote p", ["python:3.12"]),
        ("image commit w", ["web", "worker"]),
        ("image pr", ["promote", "prune"]),
        ("catalog ", ["list", "refresh"]),
        ("kernel pull ", ["debian-cloud"]),
        ("op show ", ["0p"]),
        ("completion z", ["zsh"]),
        ("vm list --st", ["--state"]),
        ("vm list --state running --st", []),
        ("vm nonsense web", []),
        ("driver ", ["install", "list", "remove"]),
        ("driver install f", ["firecracker"]),
        ("driver install firecracker --from w", []),
        ("driver remove firecracker --version 1", ["1.16.1", "1.12.1"]),
    ],
)
def test_candidates_fit_the_place(names: Names, line: str, expected: list[str]) -> None:
    assert sorted(value for value, _ in candidates(line.split(" "), names)) == sorted(expected)


def test_summaries_come_with_verbs(names: Names) -> None:
    assert ("kill", "Kill VMs immediately, as if the power were cut.") in candidates(["vm", ""], names)


def test_silence_without_a_daemon(cli: Cli, home: Path) -> None:
    ended = cli("__complete", "bash", "--", "banger vm stop ")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert not list(home.iterdir()), "completion must not start a daemon"


def test_bash_gets_only_what_follows_the_colon(cli: Cli, names: Names) -> None:
    assert cli("__complete", "bash", "--", "banger image show python:").out == "3.12\n"


def test_zsh_and_fish_get_meanings(cli: Cli, names: Names) -> None:
    assert cli("__complete", "zsh", "--", "banger", "image", "show", "py").out == (
        "python\\:3.12:docker.io/library/debian:12\n"
    )
    assert cli("__complete", "fish", "--", "banger", "vm", "ssh", "d").out == "db\trunning\n"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_script_has_correct_syntax(cli: Cli, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = cli("completion", shell).out
    assert subprocess.run([shell, "-n"], check=False, input=script.encode(), capture_output=True).returncode == 0


def test_bash_completes_for_real(names: Names, home: Path) -> None:
    wrapper = home / "banger"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m banger "$@"\n')
    wrapper.chmod(0o755)
    script = f"""
        PATH={home}:$PATH
        source <(banger completion bash)
        COMP_LINE="banger vm stop w" COMP_POINT=16
        _banger
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], check=False, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("web worker\n", "")
