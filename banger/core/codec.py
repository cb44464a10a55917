"""Dataclasses to plain JSON values and back, driven by their annotations.

One codec serves the HTTP API, ``--json``, the store's JSON columns and the OpenAPI description, so that the
four can't disagree. Supported: dataclasses, str, int, float, bool, datetime, StrEnum, ``X | None``,
``tuple[X, ...]`` and ``Mapping[str, X]``.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind

T = TypeVar("T")

#: The greatest number that every part of banger can hold: SQLite's integers have 64 bits.
MOST = (1 << 63) - 1

#: Turns a plain value into what an annotation says, or raises :class:`_MismatchError`. Made once per annotation.
_Decoder = Callable[[Any], Any]
_SCALARS = (str, int, float, bool, type(None))


def to_plain(value: Any) -> Any:
    """``value`` as what ``json.dumps`` takes: dataclasses become objects, times RFC 3339, enums their value."""
    if type(value) in _SCALARS:
        return value
    if (encode := _object_encoder(type(value))) is not None:  # type: ignore[arg-type]  # mypy: classes are hashable
        return encode(value)
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


def to_request(value: Any) -> Any:
    """``value`` as :func:`to_plain`, but without fields that have their default.

    An older daemon therefore understands every request that uses no newer field.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name: to_request(getattr(value, one.name))
            for one in fields(value)
            if getattr(value, one.name) != (one.default if one.default_factory is MISSING else one.default_factory())
        }
    if isinstance(value, (list, tuple)):
        return [to_request(item) for item in value]
    return to_plain(value)


@cache
def _object_encoder(cls: Any) -> Callable[[Any], dict[str, Any]] | None:
    """What makes an object of a dataclass; None for any other type. Made once: most fields need nothing but copying."""
    if not is_dataclass(cls):
        return None
    hints: dict[str, Any] = field_types(cls)  # type: ignore[arg-type]  # is_dataclass admits instances too
    if len(hints) < 2:  # attrgetter gives a tuple from two names on
        return lambda value: {name: to_plain(getattr(value, name)) for name in hints}
    names, fields_of = tuple(hints), attrgetter(*hints)
    encoders = [(name, _encoder(hint)) for name, hint in hints.items() if hint not in _SCALARS]

    def encode(value: Any) -> dict[str, Any]:
        plain = dict(zip(names, fields_of(value), strict=True))
        for name, encode_field in encoders:
            plain[name] = encode_field(plain[name])
        return plain

    return encode


def _encoder(annotation: Any) -> Callable[[Any], Any]:
    """What encodes values of one annotation, without looking at each what it is."""
    if is_optional(annotation):
        inner = _encoder(without_none(annotation))
        return lambda value: None if value is None else inner(value)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        if arguments[0] in _SCALARS:
            return list
        encode = _encoder(arguments[0])
        return lambda value: [encode(item) for item in value]
    if origin is not None and issubclass(origin, Mapping) and arguments[1] in _SCALARS:
        return dict
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return str
    if isinstance(annotation, type) and issubclass(annotation, datetime):
        return clock.rfc3339
    return to_plain


def from_plain(cls: type[T], data: Any, where: str = "", *, tolerant: bool = False) -> T:
    """Build the dataclass ``cls`` from a JSON object; ``tolerant`` as in :func:`decoder`.

    Raises:
        BangerError: ``usage``, naming the offending field: unknown, missing, or of the wrong type.
    """
    try:
        made: T = decoder(cls, tolerant=tolerant)(data)  # type: ignore[arg-type]  # mypy does not see that a class is hashable
    except _MismatchError as mismatch:
        raise mismatch.told(where, cls.__name__) from None
    return made


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


class _MismatchError(Exception):
    """A value that is not what its annotation says; the path to it grows while the error goes up."""

    def __init__(self, expected: str = "", problem: str = "", hint: str = "") -> None:
        super().__init__(expected or problem)
        self._expected = expected
        self._problem = problem
        self._hint = hint
        self._path = ""

    def within(self, part: str) -> _MismatchError:
        """The same, seen from one level above: ``part`` is a field's name or ``[3]``."""
        self._path = part + ("" if not self._path or self._path.startswith("[") else ".") + self._path
        return self

    def told(self, where: str, cls_name: str) -> BangerError:
        """What the user is told."""
        path = f"{where}.{self._path}" if where and self._path else where or self._path
        if self._problem:
            last = path.rpartition(".")[2]
            return BangerError(ErrorKind.USAGE, f'{self._problem} field "{path}"', subject=last, hint=self._hint)
        path = path or cls_name
        return BangerError(ErrorKind.USAGE, f'field "{path}" must be {self._expected}', subject=path)


@cache
def decoder(annotation: Any, *, tolerant: bool = False) -> _Decoder:
    """What decodes values of an annotation.

    ``tolerant`` passes over fields that an object should not have: for our own records, which a later version wrote.
    """
    if annotation is Any:
        return lambda value: value
    if is_optional(annotation):
        inner = decoder(without_none(annotation), tolerant=tolerant)
        return lambda value: None if value is None else inner(value)
    origin = get_origin(annotation)
    if origin is tuple:
        return _tuple_decoder(decoder(get_args(annotation)[0], tolerant=tolerant))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_decoder(decoder(get_args(annotation)[1], tolerant=tolerant))
    if is_dataclass(annotation):
        return _object_decoder(annotation, tolerant=tolerant)
    return _scalar_decoder(annotation)


def _object_decoder(cls: Any, *, tolerant: bool) -> _Decoder:
    hints = field_types(cls)
    known = hints.keys()
    parts = [(f.name, decoder(hints[f.name], tolerant=tolerant)) for f in fields(cls)]
    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]

    def decode(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise _MismatchError("an object")
        if not tolerant and not data.keys() <= known:
            name = min(data.keys() - known)
            raise _MismatchError(problem="unknown", hint=f"known fields: {', '.join(hints)}").within(name)
        for name in required:
            if name not in data:
                raise _MismatchError(problem="missing").within(name)
        arguments = {}
        for name, decode_field in parts:
            if name in data:
                try:
                    arguments[name] = decode_field(data[name])
                except _MismatchError as mismatch:
                    raise mismatch.within(name) from None
        return cls(**arguments)

    return decode


def _tuple_decoder(decode_item: _Decoder) -> _Decoder:
    def decode(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _MismatchError("a list")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(decode_item(item))
            except _MismatchError as mismatch:
                raise mismatch.within(f"[{index}]") from None
        return tuple(items)

    return decode


def _mapping_decoder(decode_item: _Decoder) -> _Decoder:
    def decode(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _MismatchError("an object")
        found = {}
        for key, item in value.items():
            try:
                found[str(key)] = decode_item(item)
            except _MismatchError as mismatch:
                raise mismatch.within(str(key)) from None
        return found

    return decode


def _scalar_decoder(annotation: Any) -> _Decoder:
    if issubclass(annotation, StrEnum):
        choices = ", ".join(member.value or '""' for member in annotation)
        return _converter(annotation, f"one of {choices}")
    if issubclass(annotation, datetime):
        return _converter(clock.parse_rfc3339, "an RFC 3339 time")
    names = {str: "a string", bool: "true or false"}
    expected = names.get(annotation, str(annotation))

    if annotation is float:
        return _decode_float
    if annotation is int:
        return _decode_int

    def decode(value: Any) -> Any:
        if type(value) is not annotation:
            raise _MismatchError(expected)
        return value

    return decode


def _decode_float(value: Any) -> float:
    """What is not a JSON number (RFC 8259 section 6 knows neither NaN nor infinities) would poison every answer."""
    if type(value) not in (float, int) or not -MOST <= value <= MOST:
        raise _MismatchError("a number")
    return float(value) + 0.0  # without the sign of a zero


def _decode_int(value: Any) -> int:
    if type(value) is not int or not -MOST <= value <= MOST:
        raise _MismatchError("a whole number of at most 63 bits")
    return value


def _converter(convert: Callable[[Any], Any], expected: str) -> _Decoder:
    def decode(value: Any) -> Any:
        try:
            return convert(value)
        except (ValueError, TypeError):
            raise _MismatchError(expected) from None

    return decode
