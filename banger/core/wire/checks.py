"""Checks of request fields, whatever they are for. Pure; done first of all.

The bounds are not what a host has to give, but what is a mistake on any: a number that overflows a clock, a name that
writes to a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from banger.core.codec import MOST
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import MAX_WORD_BYTES
from banger.core.wire.facts import MOST_TEXT, Facts, facts_of

_MOST_ITEMS = 4096
#: Fields without metadata are checked elsewhere, for example by :func:`banger.core.exec.check_exec`.
_UNSAID = Facts("", is_shown=False)


def check_request(value: Any) -> None:
    """Raise ``usage``, naming the field, if a field of a request has an invalid value."""
    about = facts_of(type(value))
    for one in fields(value):
        check_field(one.name, getattr(value, one.name), about.get(one.name, _UNSAID))


def check_field(name: str, value: Any, about: Facts = _UNSAID) -> None:
    """Check one field as :func:`check_request` does."""
    match value:
        case bool() | None:
            pass
        case str():
            _check_text(name, value, about)
        case int() | float():
            _check_number(name, value, about)
        case Mapping():
            _check_items(name, value, about)
            for text in (*value.keys(), *value.values()):
                _check_text(name, text, about)
        case list() | tuple():
            _check_items(name, value, about)
            for item in value:
                _check_item(name, item, about)
        case _ if is_dataclass(value):
            check_request(value)


def refused(name: str, why: str, hint: str) -> BangerError:
    """The error about a field."""
    return BangerError(ErrorKind.USAGE, f'this is not a valid value for "{name}"', subject=name, cause=why, hint=hint)


def _check_number(name: str, value: float, about: Facts) -> None:
    most = about.most or MOST
    if not 0 <= value <= most:  # which NaN is not either
        words = about.most_words or f"{int(most)}"
        raise refused(name, f"{value} is out of bounds", f"at least 0 and at most {words}")


def _check_text(name: str, text: str, about: Facts) -> None:
    if len(text) > MOST_TEXT:
        raise refused(name, f"it has {len(text)} characters", f"at most {MOST_TEXT}")
    if about.is_shown and not text.isprintable():
        raise refused(name, f"{text[:80]!r} has characters that cannot be printed", "leave them out")
    if about.choices and text not in about.choices:
        known = " or ".join(choice for choice in about.choices if choice)
        raise refused(name, f'"{text}" is none', f"use {known}{', or leave it out' if '' in about.choices else ''}")


def _check_items(name: str, items: Sequence[Any] | Mapping[str, str], about: Facts) -> None:
    if about is not _UNSAID and len(items) > _MOST_ITEMS:
        raise refused(name, f"it has {len(items)} items", f"at most {_MOST_ITEMS}")


def _check_item(name: str, item: Any, about: Facts) -> None:
    """Check an item of a list: an object, or a word that is passed to a program unchanged, including line ends."""
    if not isinstance(item, str):
        check_field(name, item)
    elif about is not _UNSAID and ("\0" in item or len(item.encode(errors="surrogateescape")) > MAX_WORD_BYTES):
        hint = f"at most {MAX_WORD_BYTES} bytes, no NUL"
        raise refused(name, f"no program can be given {item[:20]!r}…", hint)
