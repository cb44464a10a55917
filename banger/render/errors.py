"""Text output of errors: what failed, the cause, and what to type next."""

from __future__ import annotations

from banger.core.errors import BangerError
from banger.core.plain_text import printable
from banger.render.terminal import Terminal


def error_text(error: BangerError, terminal: Terminal) -> str:
    """The lines for one error, each ended."""
    lines = [f"{terminal.paint('error:', 'bold', 'red')} {printable(error.message)}"]
    label = "cause:"
    for line in filter(str.strip, error.cause.splitlines()):
        lines.append(f"  {label} {printable(line)}")
        label = " " * len(label)
    if error.hint:
        lines.append(f"  {terminal.paint('hint:', 'cyan')} {printable(error.hint)}")
    return "".join(f"{line}\n" for line in lines)
