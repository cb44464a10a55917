"""A small synchronous client of the QEMU Machine Protocol.

QMP is one JSON object a line: the server greets with ``{"QMP": …}``, the client answers ``qmp_capabilities``, and from
then on every command gets one ``return`` or ``error``, with events in between (QEMU: docs/interop/qmp-spec). QEMU
serves one client at a time, so a session is opened for a command and closed again.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from banger.core.cancel import CancelToken, Deadline
from banger.vmm.waiting import abandoned_with

#: QEMU's answers to the commands used here are short; a longer line is not one of them.
_MAX_LINE_BYTES = 1 << 20


class QmpError(Exception):
    """QEMU refused a command, broke the protocol, or went away in the middle of it."""


class QmpConnectError(QmpError):
    """Nobody listens at the socket."""


class QmpTimeoutError(QmpError):
    """QEMU did not answer before the deadline."""


class QmpSession:
    """One connection, ready for commands. Made by :func:`session`."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline
        self._buffer = bytearray()

    def open(self) -> None:
        """Wait for the greeting and leave negotiation mode."""
        greeting = self._receive()
        if "QMP" not in greeting:
            raise QmpError(f"not a QMP greeting: {greeting}")
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run one command and return what it returns; events are skipped."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._send(request)
        while True:
            answer = self._receive()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._connection.settimeout(self._remaining_s())
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except TimeoutError as error:
            raise QmpTimeoutError("no answer in time") from error
        except OSError as error:
            raise QmpError(f"connection lost: {error}") from error

    def _receive(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise QmpError("an endless line")
            self._buffer += self._read()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpError(f"not JSON: {line[:80]!r}") from error
        if not isinstance(message, dict):
            raise QmpError(f"not an object: {line[:80]!r}")
        return message

    def _read(self) -> bytes:
        try:
            self._connection.settimeout(self._remaining_s())
            data = self._connection.recv(65536)
        except TimeoutError as error:
            raise QmpTimeoutError("no answer in time") from error
        except OSError as error:
            raise QmpError(f"connection lost: {error}") from error
        if not data:
            raise QmpError("connection closed")
        return data

    def _remaining_s(self) -> float:
        remaining = self._deadline.at_most(3600.0)
        if remaining <= 0:
            raise QmpTimeoutError("no answer in time")
        return remaining


@contextmanager
def session(path: Path, deadline: Deadline, token: CancelToken | None = None) -> Iterator[QmpSession]:
    """Connect to QEMU's socket; every wait inside ends at ``deadline`` with :class:`QmpTimeoutError`.

    Raises:
        BangerError: ``cancelled``, soon after ``token`` is.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, abandoned_with(connection, token):
        try:
            connection.settimeout(deadline.at_most(3600.0) or 0.001)
            connection.connect(str(path))
        except TimeoutError as error:
            raise QmpTimeoutError("no answer in time") from error
        except OSError as error:
            raise QmpConnectError(f"cannot connect: {error}") from error
        opened = QmpSession(connection, deadline)
        opened.open()
        yield opened
