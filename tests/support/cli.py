"""Running `banger` against the fake API: in this process (fast), or as a real process where descriptors matter.

The fixtures are in :mod:`tests.support.cli_fixtures`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_STARTED: list[subprocess.Popen[bytes]] = []


def banger_process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as a process of its own, which ignores no signal that we ignore.

    Its group is its own, too, with a parent in another one of the same session: Linux does not stop orphaned groups.
    """
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = ["env", "--default-signal", sys.executable, "-m", "banger", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=dict(os.environ), process_group=0, **streams)
    _STARTED.append(process)
    return process


def end_processes() -> None:
    """Kill what a failed test left running: a caller that stays would keep the fake API waiting for ever."""
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def banger(*arguments: str, stdin: bytes = b"", timeout: float = 30) -> tuple[int, bytes, bytes]:
    """Run a command as a process of its own; its exit code, stdout and stderr."""
    process = banger_process(*arguments)
    out, err = process.communicate(stdin, timeout=timeout)
    return process.returncode, out, err
