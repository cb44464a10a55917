"""Dataclasses to table rows and back: scalars as columns, everything else as JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, TypeVar

from banger.core import codec

T = TypeVar("T")

#: Decoded values of one column that are kept: those of as many rows as a large installation has.
_REMEMBERED = 4096


def to_row(value: Any, nullable: tuple[str, ...] = ()) -> dict[str, Any]:
    """Column name to SQLite value. Empty strings of the ``nullable`` columns become NULL."""
    row: dict[str, Any] = {}
    for name, item in codec.to_plain(value).items():
        if isinstance(item, bool):
            row[name] = int(item)
        elif isinstance(item, (dict, list)):
            row[name] = json.dumps(item, separators=(",", ":"), ensure_ascii=False)
        else:
            row[name] = None if name in nullable and item == "" else item
    return row


def from_row(cls: type[T], row: Mapping[str, Any]) -> T:
    """The inverse of :func:`to_row`. The row is our own: what is wrong with it is a bug, not somebody's input."""
    return cls(**{name: read(row[name]) for name, read in _columns(cls)})  # type: ignore[arg-type]  # mypy does not see that a class is hashable


@cache
def _columns(cls: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """How each column of a dataclass is read; made once."""
    return tuple((name, _reader(annotation)) for name, annotation in codec.field_types(cls).items())


def _reader(annotation: Any) -> Callable[[Any], Any]:
    optional = codec.is_optional(annotation)
    base = codec.without_none(annotation) if optional else annotation
    absent = None if optional else ""
    if base is bool:
        return bool
    decode = codec.decoder(base)
    if not _is_scalar(base):
        # Most JSON columns hold what hardly ever changes (a wish, the times of a start), and values are immutable.
        decode = lru_cache(_REMEMBERED)(lambda text, decode=decode: decode(json.loads(text)))
    return lambda value: absent if value is None else decode(value)


def _is_scalar(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, str | int | float | datetime | StrEnum)
