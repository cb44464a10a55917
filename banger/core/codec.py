"""Dataclasses to plain JSON values and back, driven by their annotations.

One codec serves the HTTP API, ``--json``, the store's JSON columns and the OpenAPI description, so that the
four can't disagree. Supported: dataclasses, str, int, float, bool, datetime, StrEnum, ``X | None``,
``tuple[X, ...]`` and ``Mapping[str, X]``.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """``value`` as what ``json.dumps`` takes: dataclasses become objects, times RFC 3339, enums their value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, datetime):
        return clock.rfc3339(value)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def from_plain(cls: type[T], data: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from a JSON object.

    Raises:
        BangerError: ``usage``, naming the offending field: unknown, missing, or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise _wrong(where or cls.__name__, "an object")
    hints: dict[str, Any] = field_types(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise BangerError(
            ErrorKind.USAGE,
            f'unknown field "{_join(where, unknown[0])}"',
            subject=unknown[0],
            hint=f"known fields: {', '.join(hints)}",
        )
    arguments: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]  # T is a dataclass by contract
        if item.name in data:
            arguments[item.name] = _decode(hints[item.name], data[item.name], _join(where, item.name))
        elif item.default is MISSING and item.default_factory is MISSING:
            raise BangerError(ErrorKind.USAGE, f'missing field "{_join(where, item.name)}"', subject=item.name)
    return cls(**arguments)


def field_types(cls: type[Any]) -> dict[str, Any]:
    """Field name to resolved annotation, for a dataclass. Cached: resolving costs more than decoding."""
    return _field_types(cls)  # type: ignore[arg-type]  # mypy does not see that a class is hashable


@cache
def _field_types(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls)}


def is_optional(annotation: Any) -> bool:
    """True for ``X | None``."""
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def without_none(annotation: Any) -> Any:
    """``X`` of ``X | None``."""
    return next(arg for arg in get_args(annotation) if arg is not type(None))


def _decode(annotation: Any, value: Any, where: str) -> Any:
    if is_optional(annotation):
        return None if value is None else _decode(without_none(annotation), value, where)
    origin = get_origin(annotation)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _wrong(where, "a list")
        return tuple(_decode(get_args(annotation)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, "an object")
        return {str(key): _decode(get_args(annotation)[1], item, f"{where}.{key}") for key, item in value.items()}
    return _decode_scalar(annotation, value, where)


def _decode_scalar(annotation: Any, value: Any, where: str) -> Any:
    if annotation is Any:
        return value
    if is_dataclass(annotation):
        return from_plain(annotation, value, where)  # type: ignore[arg-type]  # is_dataclass admits instances too
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        try:
            return annotation(value)
        except ValueError:
            raise _wrong(where, "one of " + ", ".join(member.value or '""' for member in annotation)) from None
    if isinstance(annotation, type) and issubclass(annotation, datetime):
        try:
            return clock.parse_rfc3339(value)
        except (ValueError, TypeError):
            raise _wrong(where, "an RFC 3339 time") from None
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, annotation) or (annotation is int and isinstance(value, bool)):
        names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
        raise _wrong(where, names.get(annotation, str(annotation)))
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _wrong(where: str, expected: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f'field "{where}" must be {expected}', subject=where)
