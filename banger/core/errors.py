"""The one error type that crosses every boundary, and its closed set of kinds.

A kind is mapped exactly once to an HTTP status and once to an exit code; everything else about a failure
is text for people: whose fault, why, and what to type next.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorKind(StrEnum):
    """What went wrong, as far as a program needs to know."""

    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    CONFLICT = "conflict"
    AMBIGUOUS = "ambiguous"
    DENIED = "denied"
    UNAVAILABLE = "unavailable"
    EXHAUSTED = "exhausted"
    INVALID = "invalid"
    USAGE = "usage"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    UNKNOWN_OUTCOME = "unknown_outcome"
    INTERNAL = "internal"


EXIT_CODES: Mapping[ErrorKind, int] = {
    ErrorKind.INTERNAL: 1,
    ErrorKind.USAGE: 2,
    ErrorKind.NOT_FOUND: 3,
    ErrorKind.ALREADY_EXISTS: 4,
    ErrorKind.CONFLICT: 4,
    ErrorKind.AMBIGUOUS: 5,
    ErrorKind.DENIED: 6,
    ErrorKind.UNAVAILABLE: 7,
    ErrorKind.EXHAUSTED: 8,
    ErrorKind.INVALID: 9,
    ErrorKind.UNKNOWN_OUTCOME: 10,
    ErrorKind.TIMEOUT: 124,
    ErrorKind.CANCELLED: 130,
}

HTTP_STATUSES: Mapping[ErrorKind, int] = {
    ErrorKind.INTERNAL: 500,
    ErrorKind.USAGE: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.ALREADY_EXISTS: 409,
    ErrorKind.CONFLICT: 409,
    ErrorKind.AMBIGUOUS: 300,
    ErrorKind.DENIED: 403,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.EXHAUSTED: 507,
    ErrorKind.INVALID: 422,
    ErrorKind.UNKNOWN_OUTCOME: 502,
    ErrorKind.TIMEOUT: 504,
    ErrorKind.CANCELLED: 499,
}


#: Of a message, a cause or a hint: much of what they repeat was typed, or sent, by somebody.
_MOST_WORDS = 2000
#: As long as a path may be.
_MOST_SUBJECT = 4096


def _bounded(text: str, most: int = _MOST_WORDS) -> str:
    """``text`` without its middle if it is long."""
    return text if len(text) <= most else f"{text[: most - 200]}…{text[-199:]}"


class BangerError(Exception):
    """An expected failure. Its texts are bounded, whatever they repeat.

    Attributes:
        kind: one of the closed set; decides exit code and HTTP status.
        subject: the name the failure is about, as the user typed it where there is one; may be empty.
        message: one lower-case line that says what failed, with the name in double quotes.
        cause: somebody else's words (a registry's answer, an errno), or empty.
        hint: a command to type, or one plain sentence; may be empty.
        operation_id: the operation that failed, filled in by the operation itself.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        subject: str = "",
        cause: str = "",
        hint: str = "",
        operation_id: str = "",
    ) -> None:
        self.message = _bounded(message)
        super().__init__(self.message)
        self.kind = kind
        self.subject = _bounded(subject, _MOST_SUBJECT)
        self.cause = _bounded(cause)
        self.hint = _bounded(hint)
        self.operation_id = operation_id

    @property
    def exit_code(self) -> int:
        """The process exit code that this failure ends a command with."""
        return EXIT_CODES[self.kind]

    @property
    def http_status(self) -> int:
        """The HTTP status that carries this failure."""
        return HTTP_STATUSES[self.kind]

    def to_dict(self) -> dict[str, str]:
        """The wire form: the value of ``error`` in every JSON answer."""
        return {
            "kind": self.kind.value,
            "subject": self.subject,
            "message": self.message,
            "cause": self.cause,
            "hint": self.hint,
            "operation_id": self.operation_id,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BangerError:
        """Rebuild an error from its wire form; an unknown kind reads as ``internal``."""
        try:
            kind = ErrorKind(data.get("kind", ""))
        except ValueError:
            kind = ErrorKind.INTERNAL
        return cls(
            kind,
            str(data.get("message", "unknown failure")),
            subject=str(data.get("subject", "")),
            cause=str(data.get("cause", "")),
            hint=str(data.get("hint", "")),
            operation_id=str(data.get("operation_id", "")),
        )

    def __str__(self) -> str:
        return f"{self.message}: {self.cause}" if self.cause else self.message


def cancelled(message: str = "cancelled") -> BangerError:
    """The failure of work that nobody wants any more."""
    return BangerError(ErrorKind.CANCELLED, message)


_NO_ROOM = ("there was no room on the disk", "banger system df")
_NO_DESCRIPTOR = ("there was no file descriptor left", "ulimit -n; banger daemon stop")
_EXHAUSTED = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EMFILE: _NO_DESCRIPTOR,
    errno.ENFILE: _NO_DESCRIPTOR,
}


def internal_error(error: BaseException, doing: str) -> BangerError:
    """Wrap a bug so that its asker gets an answer; the traceback goes to the log, not to the user.

    A full disk, or no descriptor left, may come up anywhere, and is no bug: it is told as what it is.
    """
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        message, hint = _EXHAUSTED[error.errno]
        return BangerError(ErrorKind.EXHAUSTED, f"{message} while {doing}", cause=str(error), hint=hint)
    return BangerError(
        ErrorKind.INTERNAL,
        f"internal error while {doing}",
        cause=f"{type(error).__name__}: {error}",
        hint="banger daemon logs",
    )
