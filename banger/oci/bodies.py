"""The body of an HTTP response while it is received."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import requests

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError
from banger.core.units import whole_number
from banger.oci import failures
from banger.oci.retry import TransientError
from banger.oci.stall_timer import StallTimer

_CHUNK_BYTES = 1 << 18


def decoded(body: bytes, encoding: str, limit: int, too_long: Callable[[], BangerError]) -> bytes:
    """A body without the gzip that some proxies put around it, asked for or not; as it is if there is none."""
    if encoding.strip().lower() not in ("gzip", "x-gzip") or not body.startswith(b"\x1f\x8b"):
        return body
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        return body
    if len(plain) > limit:
        raise too_long()
    return plain


class ResponseBody:
    """The bytes of a streamed answer, from ``start`` on. Close it; cancelling the token cuts the connection."""

    def __init__(
        self,
        response: requests.Response,
        start: int,
        token: CancelToken,
        stall_timer: StallTimer,
        broken: Callable[[BaseException], TransientError],
    ) -> None:
        """Read nothing yet.

        Args:
            response: what was answered.
            start: where in the whole its first byte belongs.
            token: ends every wait.
            stall_timer: is told what comes, and ends a body that only drips.
            broken: the failure that a connection which breaks means.
        """
        self.start = start
        self._response = response
        self._token = token
        self._stall_timer = stall_timer
        self._broken = broken
        self._forget = token.on_cancel(lambda: failures.cut_off(response))
        #: Bytes that were announced for this body, or ``None``.
        self.length = whole_number(response.headers.get("Content-Length", ""))

    def read(self) -> bytes:
        """The next bytes as they arrive, empty at the end.

        Raises:
            TransientError: the connection broke.
            BangerError: so little has come for so long that it is given up; ``cancelled``.
        """
        try:
            chunk: bytes = self._response.raw.read1(_CHUNK_BYTES, decode_content=False)
        except failures.NETWORK_ERRORS as error:
            self._token.raise_if_cancelled()
            raise self._broken(error) from error
        self._token.raise_if_cancelled()
        self._stall_timer.received(len(chunk))
        if chunk and not self._stall_timer.left_s():
            raise self._stall_timer.given_up(self._broken(TimeoutError("it sends too slowly")).final)
        return chunk

    def read_all(self, limit: int, too_long: Callable[[], BangerError]) -> bytes:
        """Everything, and close; raises what ``too_long`` gives if that is more than ``limit`` bytes."""
        body = bytearray()
        with self:
            while chunk := self.read():
                body += chunk
                if len(body) > limit:
                    raise too_long()
        return bytes(body)

    def close(self) -> None:
        """Give the connection back, or drop it in the middle of a body."""
        self._forget()
        self._response.close()

    def __enter__(self) -> ResponseBody:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
