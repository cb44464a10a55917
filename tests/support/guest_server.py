"""What listens in a guest, as far as published ports are concerned: a server on this host, beside the agent there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress


class GuestServer:
    """Each connection meets ``guest`` in a thread of its own."""

    def __init__(self, guest: Callable[[socket.socket], None], address: str = "127.0.0.1") -> None:
        self._guest = guest
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, 0), family=family)
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                threading.Thread(target=self._served, args=(stream,), daemon=True).start()

    def _served(self, stream: socket.socket) -> None:
        with closing(stream), suppress(OSError):
            self._guest(stream)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)
