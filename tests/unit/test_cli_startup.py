"""The start-up budget: what a command imports before it does its work. The times themselves are measured in bench/."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.cli import ROOT
from tests.support.fake_api import FakeApi, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)

HEAVY = frozenset(
    "asyncio asyncssh dns email http.client loguru multiprocessing oras pydantic pykka pyroute2 requests rich "
    "sqlite3 ssl starlette tarfile tomllib uvicorn xml".split()
)
#: The daemon's world, and what only other commands need.
OURS = frozenset("banger.sdk banger.daemon banger.core.codec banger.core.models banger.autostart banger.doctor".split())


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["vm", "list"], ["vm", "--help"]], ids=" ".join)
def test_nothing_heavy_is_imported(api: FakeApi, arguments: list[str]) -> None:
    api.on("GET", "/v1/vms", [vm_json()])
    command = [sys.executable, "-X", "importtime", "-m", "banger", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "typer" in imported, "the listing was not understood"
    assert not imported & (HEAVY | OURS)


def test_package_itself_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import banger; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert not {name for name in done.stdout.split() if name.startswith("banger.")}
