#!/usr/bin/env bash
# Renew requirements/: every package that is installed for running, building, testing and locking, at one version, with
# the hashes of all its files. One resolution holds for every interpreter and machine that banger supports.
#
#   scripts/lock.sh             everything at its newest version within the ranges of pyproject.toml
#   scripts/lock.sh --keep      only what pyproject.toml asks for and the files do not have; all else stays as it is
#
# No index is named in what is written: a mirror in the configuration of pip or uv is used, and leaves no trace.
set -euo pipefail
cd "$(dirname "$0")/.."

UPGRADE=(--upgrade)
if [[ "${1:-}" == --keep ]]; then
  UPGRADE=()
elif [[ $# -gt 0 ]]; then
  echo "usage: scripts/lock.sh [--keep]" >&2
  exit 2
fi

LOCKER=.cache/lock/bin
[[ -x $LOCKER/python ]] || .venv/bin/python -m venv .cache/lock
"$LOCKER/python" -m pip install --quiet --require-hashes --only-binary :all: --requirement requirements/lock.txt </dev/null

# compile FILE ARGUMENT…
compile() {
  "$LOCKER/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
    "${UPGRADE[@]}" "${@:2}" --output-file "requirements/$1" >/dev/null
}

compile dev.txt pyproject.toml --group dev
# The same versions wherever a package is needed.
compile runtime.txt pyproject.toml --constraint requirements/dev.txt
compile build.txt --group build --constraint requirements/dev.txt
compile lock.txt --group lock
