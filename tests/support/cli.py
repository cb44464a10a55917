"""Running `banger` against the fake API: in this process (fast), or as a real process where descriptors matter.

Load it with ``pytest_plugins = ("tests.support.cli",)``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from banger.__main__ import main
from tests.support.fake_api import FakeApi

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ended]


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


def banger_process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-m", "banger", *arguments], cwd=ROOT, env=dict(os.environ), **streams)


def banger(*arguments: str, stdin: bytes = b"", timeout: float = 30) -> tuple[int, bytes, bytes]:
    """Run a command as a process of its own; its exit code, stdout and stderr."""
    process = banger_process(*arguments)
    out, err = process.communicate(stdin, timeout=timeout)
    return process.returncode, out, err
