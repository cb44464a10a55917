"""The client of the daemon's HTTP API. The command and the Python SDK are both built on it.

Light on purpose: see the start-up budget in CONTRIBUTING. Every request has a connection of its own, so a
:class:`Client` may be shared between threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from banger.client.connection import Exchange, connect, error_of
from banger.core.errors import BangerError, ErrorKind

if TYPE_CHECKING:
    from banger.client.channel import ClientFrameChannel

#: Seconds that the daemon may take to answer what is not a long request.
DEFAULT_TIMEOUT_S = 30.0
#: How often a waiting caller gets the chance to redraw a clock.
TICK_S = 0.2

Query = Mapping[str, Any]
OnEvent = Callable[[Mapping[str, Any] | None], None]
_T = TypeVar("_T")


class Client:
    """Talks to the daemon behind one socket."""

    def __init__(
        self,
        socket: Path,
        *,
        start_daemon: Callable[[], None] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Remember where the daemon listens; nothing is sent yet.

        Args:
            socket: path of the daemon's Unix socket.
            start_daemon: called when nobody listens there; returns once somebody does. ``None``: that is an error.
            timeout_s: limit for every request that is not long.
        """
        self._socket = socket
        self._start_daemon = start_daemon
        self._timeout_s = timeout_s

    def get(self, path: str, query: Query | None = None) -> Any:
        """GET and decode the JSON answer."""
        return self.call("GET", path, query)

    def call(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """One request that is answered whole; the decoded JSON answer.

        Args:
            method: of HTTP.
            path: without the socket or host.
            query: values that are lists are repeated.
            body: sent as JSON; a dataclass of :mod:`banger.core.wire`, or plain values.
            timeout_s: other than what this client was made with.

        Raises:
            BangerError: the daemon's error; ``unavailable``; ``timeout``.
        """
        exchange = self._open(method, path, query, body)
        try:
            answer = _read_all(exchange, timeout_s or self._timeout_s, f"{method} {path}")
        finally:
            exchange.close()
        _raise_for_status(exchange, answer)
        try:
            return json.loads(answer) if answer else None
        except ValueError as error:
            raise BangerError(ErrorKind.INTERNAL, f"{method} {path} was not answered in JSON") from error

    def start(self, method: str, path: str, query: Query | None = None, body: Any = None) -> LongRequest:
        """Begin a long request and return it at once; closing it before its result is hanging up."""
        wait = {} if path.startswith("/v1/operations/") else {"wait": "true"}
        return LongRequest(self._open(method, path, {**(query or {}), **wait}, body))

    def long(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        on_event: OnEvent | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """A long request: its result, once it has one. An exception here, also Ctrl-C, hangs up.

        Args:
            method: as for :meth:`call`, like the next three.
            path: without the socket or host.
            query: values that are lists are repeated.
            body: as for :meth:`call`.
            on_event: gets each event, and ``None`` whenever a while passed without one.
            timeout_s: give up after so long.
        """
        request = self.start(method, path, query, body)
        try:
            return request.result(on_event, timeout_s)
        finally:
            request.close()

    def stream(
        self, path: str, query: Query | None = None, *, on_wait: Callable[[], None] | None = None
    ) -> Iterator[bytes]:
        """GET a body of unknown length, piece by piece; ``on_wait`` is called whenever a while passed without one."""
        exchange = self._open("GET", path, query, None)
        try:
            while (piece := exchange.read(TICK_S if on_wait else None)) != b"":
                if piece is None:
                    if on_wait is not None:
                        on_wait()
                    continue
                if exchange.status != 200:
                    piece += _read_all(exchange, self._timeout_s, f"GET {path}")
                    _raise_for_status(exchange, piece)
                yield piece
            _raise_for_status(exchange, b"")
        finally:
            exchange.close()

    def frames(self, path: str, config: Any, query: Query | None = None) -> ClientFrameChannel:
        """Open a frame stream with its first frame; ``config`` as the body of :meth:`call`."""
        from banger.client.channel import ClientFrameChannel  # noqa: PLC0415  # most commands open none

        return ClientFrameChannel(self._connected(lambda: connect(self._socket)), _target(path, query), _plain(config))

    def _open(self, method: str, path: str, query: Query | None, body: Any) -> Exchange:
        data = b"" if body is None else json.dumps(_plain(body), separators=(",", ":")).encode()
        headers = {"Accept": "application/json", "Content-Length": str(len(data))}
        if data:
            headers["Content-Type"] = "application/json"
        return self._connected(lambda: Exchange(self._socket, method, _target(path, query), headers, data))

    def _connected(self, attempt: Callable[[], _T]) -> _T:
        try:
            return attempt()
        except BangerError as error:
            if error.kind is not ErrorKind.UNAVAILABLE or self._start_daemon is None:
                raise
        self._start_daemon()
        return attempt()


class LongRequest:
    """A long request under way: events, then one result."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._lines = bytearray()

    def result(self, on_event: OnEvent | None = None, timeout_s: float | None = None) -> Any:
        """Wait for the result; arguments as for :meth:`Client.long`.

        Raises:
            BangerError: the operation's own; ``timeout``; ``unknown_outcome`` if the daemon went away.
        """
        tell = on_event or (lambda _event: None)
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while end is None or time.monotonic() < end:
            message = self._next_message()
            if message is None or "event" in message:
                tell(message and message["event"])
            elif "error" in message:
                raise BangerError.from_dict(message["error"])
            else:
                return message.get("result")
        raise BangerError(ErrorKind.TIMEOUT, f"gave up after {timeout_s:g} s")

    def _next_message(self) -> dict[str, Any] | None:
        while (end := self._lines.find(b"\n")) < 0:
            piece = self._exchange.read(TICK_S)
            if piece is None:
                return None
            if self._exchange.status != 200:
                piece += _read_all(self._exchange, DEFAULT_TIMEOUT_S, "the request")
                _raise_for_status(self._exchange, piece)
            if not piece:
                message = "the daemon ended the answer without a result"
                raise BangerError(ErrorKind.UNKNOWN_OUTCOME, message, hint="banger op list")
            self._lines += piece
        line = bytes(self._lines[:end])
        del self._lines[: end + 1]
        message_: dict[str, Any] = json.loads(line)
        return message_

    def close(self) -> None:
        """Hang up, if there is no result yet."""
        self._exchange.close()


def path_of(*parts: str) -> str:
    """``/v1/…`` with every part percent-encoded whole: names may hold slashes and colons.

    Raises:
        BangerError: ``usage`` for an empty part: what a script's unset variable leaves must not name anything.
    """
    if not all(parts):
        raise BangerError(ErrorKind.USAGE, 'the name "" is empty', hint="see whether a variable of your script is set")
    return "/v1/" + "/".join(_quoted(part) for part in parts)


def _quoted(text: str) -> str:
    """Percent-encoded, and bytes of a command line that are not UTF-8 as they are."""
    return quote(text, safe="", errors="surrogateescape")


def _plain(body: Any) -> Any:
    """A request as JSON has it."""
    if isinstance(body, dict):
        return body
    from banger.core.codec import to_request  # noqa: PLC0415  # most commands send none

    return to_request(body)


def _target(path: str, query: Query | None) -> str:
    pairs = []
    for key, value in (query or {}).items():
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is None or item == "":
                continue
            text = str(item).lower() if isinstance(item, bool) else str(item)
            pairs.append(f"{key}={_quoted(text)}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def _read_all(exchange: Exchange, timeout_s: float, what: str) -> bytes:
    end = time.monotonic() + timeout_s
    pieces = []
    while piece := exchange.read(max(0.0, end - time.monotonic())):
        pieces.append(piece)
    if piece is None:
        message = f"the daemon did not answer {what} within {timeout_s:g} s"
        raise BangerError(ErrorKind.TIMEOUT, message, hint="banger daemon logs")
    return b"".join(pieces)


def _raise_for_status(exchange: Exchange, body: bytes) -> None:
    if not 200 <= exchange.status < 300:
        raise error_of(exchange.status, body)
