"""The start-up budget: what a command imports before it does its work. The times themselves are measured in bench/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import ROOT, banger
from tests.support.fake_api import FakeApi, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)

HEAVY = frozenset(
    "asyncio dns email http.client loguru multiprocessing oras pydantic pykka pyroute2 requests rich "
    "sqlite3 ssl starlette tarfile tomllib uvicorn xml".split()
)
#: The daemon's world, and what only other commands need.
OURS = frozenset(
    "banger.sdk banger.daemon banger.core.codec banger.core.models banger.client.autostart banger.doctor".split()
)


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


def test_files_are_utf8_whatever_the_locale_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locale of another encoding, which Python would take for files; here the poorest one."""
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("# für alle\n[vm]\ncpus = 3\n", encoding="utf-8")
    code, out, err = banger("config", "show")
    assert (code, err) == (0, b"")
    assert b"vm.cpus" in out
