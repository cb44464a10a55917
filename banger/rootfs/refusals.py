"""Errors for hostile or broken input: one error kind, and names that are safe to print."""

from __future__ import annotations

from banger.core.errors import BangerError, ErrorKind

_SHOWN_CHARACTERS = 120


def refused(message: str, hint: str = "") -> BangerError:
    """The ``invalid`` error for an archive that is broken, hostile or beyond a limit."""
    return BangerError(ErrorKind.INVALID, message, hint=hint)


def shown(name: bytes) -> str:
    """``name`` in double quotes for a message: no control characters, at most about 120 characters."""
    text = name.decode("utf-8", "backslashreplace")
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return f'"{safe}"' if len(safe) <= _SHOWN_CHARACTERS else f'"{safe[:_SHOWN_CHARACTERS]}…"'
