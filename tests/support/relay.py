"""A Unix socket here that leads to a Unix socket in the test host: what is said to its daemon need not be said in there.

An emulated machine takes seconds to start Python, and no command of banger does more than talk to the daemon's socket.
In the test host systemd passes on what comes to a port, which banger publishes.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PIECE = 1 << 16


@contextmanager
def relay(path: Path, port: int) -> Iterator[None]:
    """Listen at ``path`` and lead whoever connects to a TCP port of this host's loopback."""
    path.parent.mkdir(mode=0o700)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as there:
                back = threading.Thread(target=_pass_on, args=(there, self.request), daemon=True)
                back.start()
                _pass_on(self.request, there)
                back.join()

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 16

    with Server(str(path), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until the source ends; whoever has gone away is told to the other one."""
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    for each, way in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with suppress(OSError):
            each.shutdown(way)
