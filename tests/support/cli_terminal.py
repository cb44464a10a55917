"""`banger` on a pseudo-terminal, against the fake API."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time

from tests.support.cli import banger_process


class Terminal:
    """A pseudo-terminal with a command in it."""

    def __init__(self, *arguments: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.process = banger_process(*arguments, stdin=self.slave, stdout=self.slave, stderr=self.slave)
        self.output = b""

    def read_until(self, wanted: bytes, timeout_s: float = 15) -> None:
        end = time.monotonic() + timeout_s
        while wanted not in self.output:
            assert select.select([self.master], [], [], max(0.0, end - time.monotonic()))[0], self.output
            self.output += os.read(self.master, 65536)

    def close(self) -> int:
        code = self.process.wait(15)
        os.close(self.master)
        os.close(self.slave)
        return code
