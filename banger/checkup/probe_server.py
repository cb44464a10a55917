"""A server on this host for guests to connect to: clients that know its secret word get the bytes they ask for."""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
from contextlib import suppress

from banger.core.units import MIB, whole_number

_TIMEOUT_S = 20.0
_LONGEST_REQUEST = 200
#: A guest knows the word: what it asks for has bounds nevertheless.
_MOST_BYTES, _MOST_CLIENTS = MIB, 16


class ProbeServer:
    """One TCP port on the loopback interface. Use as a context manager.

    A request is one line, ``WORD hello``, ``WORD send BYTES`` or ``WORD take BYTES``. ``send`` answers with so many
    bytes, whose SHA-256 is :meth:`digest_of`; ``take`` reads so many and answers with their SHA-256. Whoever asks for
    more than a MiB, or comes while 16 others are served, is hung up on.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._socket = socket.create_server((address, 0))
        self._socket.settimeout(0.2)
        self.word = secrets.token_hex(16)
        self._seed = secrets.token_bytes(16)
        self._closing = threading.Event()
        self._places = threading.BoundedSemaphore(_MOST_CLIENTS)
        self._thread = threading.Thread(target=self._serve, name="checkup listener", daemon=True)

    def __enter__(self) -> ProbeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._socket.close()
        self._thread.join()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.getsockname()[1])

    def data(self, size_bytes: int) -> bytes:
        """What ``send`` sends: reproducible noise."""
        return hashlib.shake_128(self._seed).digest(size_bytes)

    def digest_of(self, size_bytes: int) -> str:
        """The SHA-256 of :meth:`data`, in hex."""
        return hashlib.sha256(self.data(size_bytes)).hexdigest()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._answer, args=(connection,), name="checkup answer", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            self._serve_one(connection)
        finally:
            self._places.release()

    def _serve_one(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(_TIMEOUT_S)
            with connection.makefile("rwb") as stream:
                word, _, request = stream.readline(_LONGEST_REQUEST).decode(errors="replace").strip().partition(" ")
                if not secrets.compare_digest(word.encode(), self.word.encode()):
                    return
                verb, _, wanted = request.partition(" ")
                if verb not in ("send", "take"):
                    stream.write(b"hello\n")
                    return
                size_bytes = whole_number(wanted)
                if size_bytes is None or size_bytes > _MOST_BYTES:
                    return
                if verb == "send":
                    stream.write(self.data(size_bytes))
                else:
                    stream.write(hashlib.sha256(stream.read(size_bytes)).hexdigest().encode() + b"\n")
