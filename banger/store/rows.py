"""Dataclasses to table rows and back: scalars as columns, everything else as JSON text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, TypeVar, get_origin

from loguru import logger

from banger.core import codec

T = TypeVar("T")

#: Rows of one class that are kept, and decoded values of one column: those of as many as a large installation has.
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


def columns_of(cls: type[Any]) -> tuple[str, ...]:
    """The columns of a dataclass, in the order that :func:`from_row` takes their values in."""
    return tuple(codec.field_types(cls))


def from_row(cls: type[T], values: tuple[Any, ...]) -> T:
    """The inverse of :func:`to_row`, from the values of :func:`columns_of`.

    A value that cannot be read (of another version, or damaged) is logged and read as a blank one: one odd row must
    neither hide the others nor be taken for none, since what has no row is removed.
    """
    try:
        found: T = _maker(cls)(values)  # type: ignore[arg-type]  # mypy does not see that a class is hashable
    except Exception:  # noqa: BLE001  # whatever a decoder meets: see above
        readers = _readers(cls)  # type: ignore[arg-type]  # the same
        row = zip(columns_of(cls), readers, values, strict=True)
        object_id = values[columns_of(cls).index("id")]
        return cls(*(_read(cls, object_id, name, read, value) for name, read, value in row))
    return found


def _read(cls: Any, object_id: str, name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except Exception as error:  # noqa: BLE001  # see from_row
        logger.error('{} "{}": its {} cannot be read: {!r}', cls.__name__, object_id, name, error)
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
def _maker(cls: Any) -> Callable[[tuple[Any, ...]], Any]:
    """Makes an object of a whole row. Most rows are read many times before they change, and objects are immutable."""
    readers = _readers(cls)

    @lru_cache(_REMEMBERED)
    def make(values: tuple[Any, ...]) -> Any:
        return cls(*[read(value) for read, value in zip(readers, values, strict=True)])

    return make


@cache
def _readers(cls: Any) -> tuple[Callable[[Any], Any], ...]:
    """How each column of a dataclass is read; made once."""
    return tuple(map(_reader, codec.field_types(cls).values()))


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
