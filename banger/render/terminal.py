"""What our output streams can show: width, colour, cursor movement, more than ASCII."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Terminal:
    """One output stream and its abilities. A pipe or a file gets no colour, no movement and no truncation."""

    def __init__(self, stream: TextIO, env: Mapping[str, str] | None = None) -> None:
        """Look at ``stream`` and at ``NO_COLOR`` and ``TERM``."""
        env = os.environ if env is None else env
        self.stream = stream
        self.interactive = stream.isatty()
        self.can_move = self.interactive and env.get("TERM", "dumb") != "dumb"
        self.colour = self.can_move and not env.get("NO_COLOR")
        self.unicode = (stream.encoding or "").lower().replace("-", "") == "utf8"

    @classmethod
    def stdout(cls) -> Terminal:
        """Standard output."""
        return cls(sys.stdout)

    @classmethod
    def stderr(cls) -> Terminal:
        """Standard error."""
        return cls(sys.stderr)

    @property
    def width(self) -> int | None:
        """Columns, or ``None`` where lines may be as long as they like."""
        return shutil.get_terminal_size().columns if self.interactive else None

    def paint(self, text: str, *styles: str) -> str:
        """``text`` in colour, where there is any."""
        if not self.colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def write(self, text: str) -> None:
        """Write at once."""
        self.stream.write(text)
        self.stream.flush()


def shorten(text: str, width: int, ellipsis: str = "…") -> str:
    """``text`` cut to ``width`` columns, saying so."""
    return text if len(text) <= width else text[: max(0, width - len(ellipsis))] + ellipsis
