"""Finding an object by what was typed: exact name, then exact id, then unique prefix of id or name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from banger.core.errors import BangerError, ErrorKind


class Named(Protocol):
    """Anything with an id and a name."""

    @property
    def id(self) -> str:
        """Unique id."""
        ...

    @property
    def name(self) -> str:
        """Name; empty for an object that lost it."""
        ...


T = TypeVar("T", bound=Named)


def find(query: str, candidates: Sequence[T], noun: str) -> T:
    """Return the one object that ``query`` addresses.

    Raises:
        BangerError: ``usage`` for an empty query, ``not_found`` (with close names as a hint), or
            ``ambiguous`` (listing the candidates).
    """
    if not query:
        raise BangerError(ErrorKind.USAGE, f"the {noun} name is empty", hint=f"banger {noun} list")
    for candidate in candidates:
        if candidate.name == query:
            return candidate
    for candidate in candidates:
        if candidate.id == query:
            return candidate
    matches = [c for c in candidates if c.id.startswith(query) or c.name.startswith(query)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = ", ".join(sorted(f"{c.name or '-'} ({c.id})" for c in matches))
        raise BangerError(
            ErrorKind.AMBIGUOUS,
            f'{noun} "{query}" is ambiguous',
            subject=query,
            cause=f"it could be {listed}",
            hint="type more letters of the name or the id",
        )
    raise not_found(query, noun, [c.name for c in candidates if c.name])


def not_found(query: str, noun: str, known: Iterable[str], remedy: str = "") -> BangerError:
    """The ``not_found`` error for ``query``, with the closest of the ``known`` names as a hint."""
    close = closest(query, known)
    hint = f'did you mean "{close}"?' if close else (remedy or f"banger {noun} list")
    return BangerError(ErrorKind.NOT_FOUND, f'{noun} "{query}" not found', subject=query, hint=hint)


def closest(query: str, known: Iterable[str]) -> str:
    """The known name most like ``query``, or an empty string."""
    return next(iter(difflib.get_close_matches(query, list(known), n=1, cutoff=0.6)), "")
