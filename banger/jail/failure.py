"""What could not be done, in one line: nothing runs half confined."""

from __future__ import annotations


class JailError(Exception):
    """Ends the program, before anything is executed."""


class Doing:
    """``with Doing("open", path):`` makes a :class:`JailError` of an ``OSError`` that names both."""

    def __init__(self, what: str, subject: str) -> None:
        self._what, self._subject = what, subject

    def __enter__(self) -> None:
        """Nothing is prepared."""

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        """Turn one kind of error into the other."""
        if isinstance(error, OSError):
            raise JailError(f'cannot {self._what} "{self._subject}": {error.strerror}') from error
