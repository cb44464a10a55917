"""The real command, as a process: what a user types, with what it prints and how it ends."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240.0


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    argv: tuple[str, ...]
    code: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """Standard output, as text."""
        return self.output.decode(errors="replace")

    def ok(self) -> Result:
        """This result, if the command succeeded; otherwise fail with everything it printed."""
        assert self.code == 0, str(self)
        return self

    def json(self) -> Any:
        """Standard output read as one JSON document."""
        return json.loads(self.ok().output)

    def error(self) -> dict[str, str]:
        """The error document that a failing ``--json`` command printed."""
        body: dict[str, str] = json.loads(self.output)["error"]
        return body

    def __str__(self) -> str:
        streams = f"--- stdout\n{self.text[-3000:]}\n--- stderr\n{self.errors[-3000:]}"
        return f"{' '.join(self.argv)}\nexit code {self.code}\n{streams}"


@dataclass(frozen=True, slots=True)
class Command:
    """A way to call ``banger``: interpreter, environment, and whose rights it has.

    Attributes:
        env: the whole environment; nothing is inherited.
        prefix: what stands before the interpreter (``setpriv …`` for another user).
    """

    env: Mapping[str, str]
    python: str = sys.executable
    prefix: tuple[str, ...] = ()
    cwd: Path = PROJECT

    def argv(self, *args: str) -> list[str]:
        """The complete argument list of ``banger args…``."""
        return [*self.prefix, self.python, "-m", "banger", *args]

    def run(self, *args: str, stdin: bytes = b"", timeout_s: float = TIMEOUT_S, **env: str) -> Result:
        """Run to the end. A command that outlives ``timeout_s`` is killed and fails the test."""
        with self.spawn(*args, **env) as process:
            try:
                output, errors = process.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                output, errors = process.communicate()
                raise AssertionError(f"{_result(args, process, output, errors)}\nafter {timeout_s:g} s") from None
        return _result(args, process, output, errors)

    def spawn(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        """Start it with pipes on all three streams, in a session of its own; the caller ends it."""
        return subprocess.Popen(
            self.argv(*args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**self.env, **env},
            cwd=self.cwd,
            start_new_session=True,
        )

    def terminal(self, *args: str, rows: int = 24, columns: int = 80, **env: str) -> Terminal:
        """Start it on a terminal of its own, as its controlling one."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            ["setsid", "--ctty", *self.argv(*args)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**self.env, "TERM": "xterm", **env},
            cwd=self.cwd,
        )
        os.close(theirs)
        return Terminal(process, ours)


@dataclass(slots=True)
class Terminal:
    """A command on a terminal: what a person sees and types. Use as a context manager."""

    process: subprocess.Popen[bytes]
    _descriptor: int
    shown: str = field(default="")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._descriptor)

    def type(self, text: str) -> None:
        """Type keys; ``\\x03`` is Ctrl-C."""
        os.write(self._descriptor, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a terminal emulator does: the foreground process gets the signal."""
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def expect(self, wanted: str, timeout_s: float = 60.0) -> str:
        """Read until ``wanted`` shows; everything shown since the last call."""
        start = len(self.shown)
        self._read_until(lambda: wanted in self.shown[start:], timeout_s, wanted)
        return self.shown[start:]

    def wait(self, timeout_s: float = 60.0) -> int:
        """Read until the command ends; its exit code, 128+n for signal n."""
        self._read_until(lambda: False, timeout_s, "the end", until_end=True)
        code = self.process.wait(timeout_s)
        return code if code >= 0 else 128 - code

    def _read_until(self, done: Callable[[], bool], timeout_s: float, what: str, *, until_end: bool = False) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what!r} on the terminal within {timeout_s:g} s:\n{self.shown}")
            if not select.select([self._descriptor], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:
                data = b""  # Linux says EIO when the last user of the other end is gone
            if not data:
                if until_end:
                    return
                raise AssertionError(f"the command ended before it showed {what!r}:\n{self.shown}")
            self.shown += data.decode(errors="replace")


def _result(args: tuple[str, ...], process: subprocess.Popen[bytes], output: bytes, errors: bytes) -> Result:
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return Result(("banger", *args), code, output, errors.decode(errors="replace"))
