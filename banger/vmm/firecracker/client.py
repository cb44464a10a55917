"""A small, strict client of Firecracker's API: HTTP/1.1 on a Unix socket.

A request has its own connection. Firecracker answers 200 with JSON or 204 with nothing; an error is a 400 with
``{"fault_message": …}`` or ``{"error": …}`` (Firecracker: ``src/firecracker/src/api_server``). The process at the other
end may belong to a guest by now, so all that it says is bounded.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger.core.cancel import CancelToken, Deadline
from banger.vmm.waiting import abandoned_with

_MOST_HEAD_BYTES = 16 << 10
_MOST_BODY_BYTES = 1 << 20
_PIECE = 16 << 10
_OK, _NO_CONTENT = 200, 204
_MOST_WORDS = 500


class ApiError(Exception):
    """Firecracker refused a request, broke the protocol, or went away in the middle of it."""


class ApiConnectError(ApiError):
    """Nobody listens at the socket."""


class ApiTimeoutError(ApiError):
    """No answer before the deadline."""


@dataclass(frozen=True, slots=True)
class Api:
    """The API of one process.

    Attributes:
        path: of its socket.
        timeout_s: what one request may take.
        token: ends every wait.
    """

    path: Path
    timeout_s: float
    token: CancelToken | None = None

    def get(self, path: str) -> dict[str, Any]:
        """What a resource is."""
        return self._request("GET", path, None)

    def put(self, path: str, body: Mapping[str, object]) -> None:
        """Set a resource."""
        self._request("PUT", path, body)

    def patch(self, path: str, body: Mapping[str, object]) -> None:
        """Change a resource."""
        self._request("PATCH", path, body)

    def _request(self, method: str, path: str, body: Mapping[str, object] | None) -> dict[str, Any]:
        deadline = Deadline.after(self.timeout_s)
        with _unix_socket() as connection, abandoned_with(connection, self.token):
            try:
                connection.settimeout(_left(deadline))
                connection.connect(str(self.path))
            except TimeoutError as error:
                raise ApiTimeoutError("no answer in time") from error
            except OSError as error:
                raise ApiConnectError(f"cannot connect: {error}") from error
            try:
                connection.sendall(encode(method, path, body))
                status, content = _answer(connection, deadline)
            except TimeoutError as error:
                raise ApiTimeoutError("no answer in time") from error
            except OSError as error:
                raise ApiError(f"connection lost: {error}") from error
        if status not in (_OK, _NO_CONTENT):
            raise ApiError(f"{method} {path}: {_fault(content) or f'status {status}'}")
        return _object(content) if content else {}


def _unix_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:  # no descriptor is left: whoever asks will ask again
        raise ApiTimeoutError(f"no socket: {error}") from error


def encode(method: str, path: str, body: Mapping[str, object] | None) -> bytes:
    """A request. Pure."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


def parse_head(head: bytes) -> tuple[int, int]:
    """Status and length of the body. Pure. Raises :class:`ApiError` for what is no such head."""
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2 or words[0] not in (b"HTTP/1.1", b"HTTP/1.0") or not _is_number(words[1], 3):
        raise ApiError(f"not an answer: {first[:80]!r}")
    length = 0
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"transfer-encoding":
            raise ApiError("an answer in pieces")
        if name.strip().lower() == b"content-length":
            if not _is_number(value.strip(), 7):
                raise ApiError(f"not a length: {value[:80]!r}")
            length = int(value)
    if length > _MOST_BODY_BYTES:
        raise ApiError("an endless answer")
    return int(words[1]), length


def _answer(connection: socket.socket, deadline: Deadline) -> tuple[int, bytes]:
    data = bytearray()
    while (end := data.find(b"\r\n\r\n")) < 0:
        if len(data) > _MOST_HEAD_BYTES:
            raise ApiError("an endless head")
        data += _read(connection, deadline)
    status, length = parse_head(bytes(data[:end]))
    content = data[end + 4 :]
    while len(content) < length:
        content += _read(connection, deadline)
    return status, bytes(content[:length])


def _read(connection: socket.socket, deadline: Deadline) -> bytes:
    connection.settimeout(_left(deadline))
    data = connection.recv(_PIECE)
    if not data:
        raise ApiError("connection closed")
    return data


def _left(deadline: Deadline) -> float:
    remaining = deadline.at_most(3600.0)
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _is_number(text: bytes, digits: int) -> bool:
    return 0 < len(text) <= digits and text.isdigit()


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"not JSON: {content[:80]!r}") from error
    if not isinstance(value, dict):
        raise ApiError(f"not an object: {content[:80]!r}")
    return value


def _fault(content: bytes) -> str:
    """What an error says, in one line."""
    try:
        value = _object(content)
    except ApiError:
        return ""
    words = value.get("fault_message") or value.get("error") or ""
    return " ".join(str(words).split())[:_MOST_WORDS]
