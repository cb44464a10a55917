"""One socket, one request, one response: connecting to the daemon, and the errors of that."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from banger.client.http1 import ProtocolError, ResponseParser, encode_head
from banger.core.errors import BangerError, ErrorKind

#: ``struct ucred``: pid, uid and gid of the peer (unix(7)).
_CREDENTIALS = struct.Struct("iII")
_RECEIVE_BYTES = 256 * 1024


def connect(path: Path) -> socket.socket:
    """A connected socket, without a timeout.

    Raises:
        BangerError: ``unavailable`` if nobody listens, ``denied`` if this user may not, ``usage`` for a path too long.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise _refused(path, error) from error
    try:
        _check_server(path, sock)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_server(path: Path, sock: socket.socket) -> None:
    """Whoever listens must be this user or root: what we would say is not for anybody else's ears."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid not in (0, os.geteuid()):
        raise BangerError(
            ErrorKind.DENIED,
            f'the daemon at "{path}" is user {uid}\'s, not yours',
            subject=str(path),
            hint="run banger as that user; BANGER_HOME selects another installation",
        )


def _refused(path: Path, error: OSError) -> BangerError:
    cause = error.strerror or str(error)
    if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
        return BangerError(
            ErrorKind.UNAVAILABLE,
            "the banger daemon is not running",
            subject=str(path),
            cause=f"{path}: {cause}",
            hint="banger daemon start",
        )
    if isinstance(error, PermissionError):
        return BangerError(
            ErrorKind.DENIED,
            f'no permission to use the daemon\'s socket "{path}"',
            subject=str(path),
            cause=cause,
            hint="run banger as the user who started that daemon; BANGER_HOME selects another installation",
        )
    if error.errno is None or error.errno == errno.ENAMETOOLONG:  # Python's own check of the 107 bytes has no errno
        return BangerError(
            ErrorKind.USAGE,
            f'the socket path "{path}" is too long for Linux (107 bytes)',
            subject=str(path),
            hint="set BANGER_HOME to a shorter directory",
        )
    return BangerError(ErrorKind.UNAVAILABLE, f'cannot reach the daemon at "{path}"', subject=str(path), cause=cause)


def lost_connection(error: Exception, method: str) -> BangerError:
    """The daemon went away before it answered: harmless for what only reads, an unknown outcome for the rest."""
    cause = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if method == "GET":
        message = "the daemon went away before it answered"
        return BangerError(ErrorKind.UNAVAILABLE, message, cause=cause, hint="banger daemon logs")
    message = "the daemon went away before it said how the request ended"
    return BangerError(ErrorKind.UNKNOWN_OUTCOME, message, cause=cause, hint="banger op list")


def error_of(status: int, body: bytes) -> BangerError:
    """The daemon's error answer as an exception."""
    try:
        return BangerError.from_dict(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:200].decode(errors="replace").strip()
        return BangerError(ErrorKind.INTERNAL, f"the daemon answered with status {status}", cause=text)


class Exchange:
    """A request that was sent, and its response as it arrives. Closing it early is hanging up."""

    def __init__(self, path: Path, method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        self._method = method
        self._parser = ResponseParser()
        self._sock = connect(path)
        try:
            self._sock.sendall(encode_head(method, target, {"Connection": "close", **headers}) + body)
        except OSError:
            pass  # a server that refuses early may close its reading side first; its answer tells more than this
        except BaseException:
            self._sock.close()
            raise

    def read(self, timeout_s: float | None = None) -> bytes | None:
        """The next bytes of the body: empty at its end, ``None`` if nothing came within ``timeout_s`` seconds."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while not self._parser.complete:
                self._sock.settimeout(None if end is None else max(0.001, end - time.monotonic()))
                data = self._sock.recv(_RECEIVE_BYTES)
                if not data:
                    self._parser.end_of_stream()
                if piece := self._parser.feed(data):
                    return piece
                if end is not None and time.monotonic() >= end:
                    return None
        except TimeoutError:
            return None
        except (OSError, ProtocolError) as error:
            raise lost_connection(error, self._method) from error
        return b""

    @property
    def status(self) -> int:
        """The status code; 0 until the head of the response has arrived."""
        return self._parser.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The response's header fields, names in lower case."""
        return self._parser.headers

    def close(self) -> None:
        """Hang up, or just let go of a response that has ended."""
        self._sock.close()
