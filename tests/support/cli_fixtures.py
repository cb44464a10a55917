"""A pytest plugin: an empty installation, a fake daemon in it, and `banger` run against it.

Load it with ``pytest_plugins = ("tests.support.cli_fixtures",)``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.__main__ import main
from tests.support.cli import ROOT, Cli, Ended, end_processes
from tests.support.cli_terminal import Terminal
from tests.support.fake_api import FakeApi


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A BANGER_HOME with a short path, set in the environment."""
    path = Path(tempfile.mkdtemp(prefix="c-"))
    monkeypatch.setenv("BANGER_HOME", str(path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def api(home: Path) -> Iterator[FakeApi]:
    """A fake daemon behind the socket of :func:`home`."""
    with FakeApi(home / "run" / "banger.sock") as running:
        yield running
        end_processes()


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line in this process."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["banger", *arguments])
        capsys.readouterr()
        code = main()
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> type[Terminal]:
    """Start a command on a terminal of its own."""
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal
