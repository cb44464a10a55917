"""A stand-in for the VMM's user-mode stack: it accepts first, asks the guest then, and closes if that refuses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress


class SlirpLike:
    """Listens on a loopback port. ``guest`` is what a served connection meets; None: nobody listens in the guest."""

    def __init__(self, guest: Callable[[socket.socket], None] | None) -> None:
        self._guest = guest
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address, self.port = self.listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                if self._guest is None:
                    stream.close()  # with what was sent unread: the kernel makes that a reset
                else:
                    threading.Thread(target=self._served, args=(stream,), daemon=True).start()

    def _served(self, stream: socket.socket) -> None:
        assert self._guest is not None
        with closing(stream), suppress(OSError):
            self._guest(stream)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(5)
