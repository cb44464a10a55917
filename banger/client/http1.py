"""Just enough HTTP/1.1 (RFC 9112) to talk to our own daemon: requests as bytes, responses parsed as they arrive.

The standard library's client would do, but importing it (email, ssl) costs more than everything else that
``banger vm list`` does. Pure: sockets are in :mod:`banger.client.connection`.
"""

from __future__ import annotations

from collections.abc import Mapping

MAX_HEAD = 64 * 1024
_MAX_CHUNK_LINE = 256
#: Appended to a chunked request body when it has ended.
LAST_CHUNK = b"0\r\n\r\n"


class ProtocolError(Exception):
    """The peer does not speak the HTTP that we understand."""


def encode_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request; ``target`` is already percent-encoded."""
    lines = [f"{method} {target} HTTP/1.1", "Host: banger", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body. An empty chunk would end the body, so it becomes nothing at all."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ResponseParser:
    """Takes the bytes of one response in pieces of any size and gives back the bytes of its body.

    Attributes:
        status: the status code; 0 until the head has arrived.
        headers: names in lower case.
        complete: the whole body has arrived.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self._buffer = bytearray()
        self._chunked = False
        self._left: int | None = None  # bytes to come of the body or of this chunk; None: until the peer closes
        self._chunk_open = False
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        """Take what arrived and return the part of the body that it completes. Raises :class:`ProtocolError`."""
        self._buffer += data
        while not self.status:
            if not self._take_head():
                return b""
        return self._take_chunks() if self._chunked else self._take_plain()

    def end_of_stream(self) -> None:
        """The peer closed its side. Raises :class:`ProtocolError` if that cuts the response short."""
        if self.status and not self._chunked and self._left is None:
            self.complete = True
        if not self.complete:
            raise ProtocolError("the connection was closed in the middle of an answer")

    def _take_head(self) -> bool:
        """Read one head; interim answers (1xx) are skipped by leaving ``status`` at 0."""
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
            raise ProtocolError("the head of the answer is too long")
        if end < 0:
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        status = _parse_status(lines[0])
        if status >= 200:
            self.headers = dict(_parse_field(line) for line in lines[1:])
            self.status = status
            self._choose_framing()
        return True

    def _choose_framing(self) -> None:
        coding = self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length")
        if coding and coding != "chunked":
            raise ProtocolError(f'unknown transfer coding "{coding}"')
        self._chunked = bool(coding)
        if self.status in (204, 304):
            self._chunked, self._left = False, 0
        elif not coding and length is not None:
            if not (length.isascii() and length.isdigit()):
                raise ProtocolError(f'bad content length "{length}"')
            self._left = int(length)
        self.complete = self._left == 0 and not self._chunked

    def _take_plain(self) -> bytes:
        take = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
        body = bytes(self._buffer[:take])
        del self._buffer[:take]
        if self._left is not None:
            self._left -= take
            self.complete = self._left == 0
        return body

    def _take_chunks(self) -> bytes:
        parts: list[bytes] = []
        while not self.complete and self._buffer:
            if self._left:
                part = bytes(self._buffer[: self._left])
                del self._buffer[: len(part)]
                self._left -= len(part)
                parts.append(part)
            elif not self._take_chunk_line():
                break
        return b"".join(parts)

    def _take_chunk_line(self) -> bool:
        """Read the line between two chunks, a chunk's size, or a trailer; False if it has not arrived yet."""
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_CHUNK_LINE:
                raise ProtocolError("a chunk of the answer has no size")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        if self._in_trailers:
            self.complete = not line
        elif self._chunk_open:
            if line:
                raise ProtocolError("a chunk of the answer is longer than it said")
            self._chunk_open = False
        else:
            self._left = _parse_chunk_size(line)
            self._chunk_open = self._left > 0
            self._in_trailers = self._left == 0
        return True


def _parse_status(line: str) -> int:
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (code.isascii() and code.isdigit() and len(code) == 3):
        raise ProtocolError(f'not an HTTP answer: "{line[:60]}"')
    return int(code)


def _parse_field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise ProtocolError(f'bad header "{line[:60]}"')
    return name.lower(), value.strip()


def _parse_chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.translate(None, b"0123456789abcdefABCDEF"):
        raise ProtocolError("a chunk of the answer has no size")
    return int(digits, 16)
