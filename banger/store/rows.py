"""Dataclasses to table rows and back: scalars as columns, everything else as JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, TypeVar, get_origin

from loguru import logger

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
    """The inverse of :func:`to_row`.

    A value that cannot be read (of another version, or damaged) is logged and read as a blank one: one odd row must
    neither hide the others nor be taken for none, since what has no row is removed.
    """
    return cls(**{name: _read(cls, name, read, row) for name, read in _columns(cls)})  # type: ignore[arg-type]  # mypy does not see that a class is hashable


def _read(cls: Any, name: str, read: Callable[[Any], Any], row: Mapping[str, Any]) -> Any:
    try:
        return read(row[name])
    except Exception as error:  # noqa: BLE001  # whatever a decoder meets: see from_row
        logger.error('{} "{}": its {} cannot be read: {!r}', cls.__name__, row["id"], name, error)
        return _blank(codec.field_types(cls)[name])


def _blank(annotation: Any) -> Any:
    """A value of a type that says nothing; a state that nobody knows is ``failed``."""
    if codec.is_optional(annotation):
        return None
    if is_dataclass(annotation):
        required = [one for one in fields(annotation) if one.default is MISSING and one.default_factory is MISSING]
        types = codec.field_types(annotation)  # type: ignore[arg-type]  # is_dataclass admits instances too
        return annotation(**{one.name: _blank(types[one.name]) for one in required})  # type: ignore[operator]  # the same
    if get_origin(annotation) is not None:
        return get_origin(annotation)() if get_origin(annotation) is tuple else {}
    if issubclass(annotation, StrEnum):
        return next((one for one in annotation if one.value == "failed"), next(iter(annotation)))
    return datetime.fromtimestamp(0, UTC) if issubclass(annotation, datetime) else annotation()


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
    decode = codec.decoder(base, tolerant=True)
    if not _is_scalar(base):
        # Most JSON columns hold what hardly ever changes (a spec, the times of a start), and values are immutable.
        decode = lru_cache(_REMEMBERED)(lambda text, decode=decode: decode(json.loads(text)))
    return lambda value: absent if value is None else decode(value)


def _is_scalar(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, str | int | float | datetime | StrEnum)
