"""What the scripted registries have in common: a server on a free port of loopback, and how one request is answered."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, TypeVar


class Scripted(Protocol):
    """The script and the record of one server."""

    stopping: threading.Event


R = TypeVar("R", bound=Scripted)


class ScriptedHandler(BaseHTTPRequestHandler):
    """One request under way."""

    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        """Answer, whatever the method."""
        raise NotImplementedError

    def do_GET(self) -> None:
        self.serve()

    def do_HEAD(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def do_PUT(self) -> None:
        self.serve()

    def send(self, status: int, headers: Mapping[str, str], body: bytes, *, length: int | None = None) -> None:
        """A whole answer; ``length`` overrides the announced one."""
        self.begin(status, {**headers, "Content-Length": str(len(body) if length is None else length)})
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Status line and headers only."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def hang_up(self) -> None:
        """Cut the connection where it stands."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


class ScriptedServer(ThreadingHTTPServer):
    """Hands its ``registry`` to every request."""

    daemon_threads = True
    registry: Any

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what half of these tests are about."""


@contextmanager
def serving(handler: type[ScriptedHandler], make: Callable[[str], R]) -> Iterator[R]:
    """Run what ``make`` makes of the server's address on a free port of loopback."""
    server = ScriptedServer(("127.0.0.1", 0), handler)
    registry = server.registry = make(f"127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        registry.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
