"""Dataclasses to table rows and back: scalars as columns, everything else as JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from banger.core import codec

T = TypeVar("T")


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
    """The inverse of :func:`to_row`."""
    data: dict[str, Any] = {}
    for name, annotation in codec.field_types(cls).items():
        value = row[name]
        base = codec.without_none(annotation) if codec.is_optional(annotation) else annotation
        if value is None:
            data[name] = None if codec.is_optional(annotation) else ""
        elif base is bool:
            data[name] = bool(value)
        elif _is_scalar(base):
            data[name] = value
        else:
            data[name] = json.loads(value)
    return codec.from_plain(cls, data)


def _is_scalar(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, str | int | float | datetime | StrEnum)
