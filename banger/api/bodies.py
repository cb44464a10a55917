"""Reading request bodies: JSON bytes into what a route takes, checked by the codec."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from banger.core import codec
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.wire.checks import check_request

#: No request but a frame stream needs more.
MAX_BODY_BYTES = 1 << 20

T = TypeVar("T")

#: As JSON has it; an even number of backslashes before it are none of its own.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


async def read_body(request: Request, cls: type[T]) -> T:
    """The request's JSON body as ``cls``; ``usage`` errors name the field, ``cancelled`` is for a caller that left."""
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                raise BangerError(ErrorKind.USAGE, "the request is too large")
    except ClientDisconnect:
        raise cancelled("the caller left in the middle of its request") from None
    return decode(bytes(data), cls)


def decode(data: bytes, cls: type[T]) -> T:
    """JSON bytes as ``cls``, each field within its bounds.

    No name, path or word of a command holds a NUL: what is made of them ends there. What a name that comes twice would
    mean is anybody's guess (RFC 8259 section 4).
    """
    try:
        value: Any = json.loads(data or b"{}", object_pairs_hook=_object, parse_constant=_no_number)
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        cause = ascii(str(error.object)[max(0, error.start - 20) : error.end + 20])
        raise BangerError(ErrorKind.USAGE, "the request holds text that is not UTF-8", cause=cause) from None
    except (ValueError, RecursionError) as error:
        raise BangerError(ErrorKind.USAGE, "the request is not JSON", cause=str(error)) from None
    if found := _NUL.search(text):
        cause = text[max(0, found.start() - 20) : found.end() + 20]
        raise BangerError(ErrorKind.USAGE, "the request holds a NUL character", cause=cause)
    made = codec.from_plain(cls, value)
    check_request(made)
    return made


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"{name[:40]!r} is there twice in one object")
        made[name] = value
    return made


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
