"""A small synchronous client of the QEMU Machine Protocol.

QMP is one JSON object a line: the server greets with ``{"QMP": …}``, the client answers ``qmp_capabilities``, and from
then on every command gets one ``return`` or ``error``, with events in between (QEMU: docs/interop/qmp-spec). QEMU
serves one client at a time, so a session is opened for a command and closed again. While a machine is being saved it is
kept: whoever else asks then hears nothing in time. A QEMU that was too busy to answer before its client went away may
give the answer to the next one, so commands carry an id, and only what has the same one answers them.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
        self._heard = False
        self._name = secrets.token_hex(4)
        self._asked = 0
        self._greeting: Mapping[str, Any] = {}

    def open(self) -> None:
        """Wait for the greeting and leave negotiation mode."""
        self._greeting = self._receive()
        while "id" in self._greeting:  # meant for somebody who went away
            self._greeting = self._receive()
        if "QMP" not in self._greeting:
            raise QmpError(f"not a QMP greeting: {self._greeting}")
        self.execute("qmp_capabilities")

    @property
    def version(self) -> str:
        """The release that answers, as its ``-version`` tells it."""
        told = self._greeting["QMP"]["version"]
        number = ".".join(str(told["qemu"][part]) for part in ("major", "minor", "micro"))
        return f"QEMU emulator version {number}" + (f" ({told['package']})" if told.get("package") else "")

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, descriptor: int | None = None
    ) -> Any:
        """Run one command, which may be given an open file, and return what it returns; events are skipped."""
        self._asked += 1
        own = f"{self._name}-{self._asked}"
        request: dict[str, object] = {"execute": command, "id": own}
        if arguments:
            request["arguments"] = arguments
        self._send(request, descriptor)
        while True:
            answer = self._receive()
            if answer.get("id", own) != own:
                continue
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")
            self._heard = True

    def allow(self, seconds: float) -> None:
        """From now on, every wait ends after so long."""
        self._deadline = Deadline.after(seconds)

    def wait_for_event(self, timeout_s: float) -> None:
        """Return when something has happened that QEMU tells of, also since the last call, or after ``timeout_s``."""
        heard, self._heard = self._heard, False
        if not heard:
            with suppress(QmpTimeoutError):
                self._receive(Deadline.after(self._deadline.at_most(timeout_s)))

    def _send(self, message: Mapping[str, object], descriptor: int | None) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            self._connection.settimeout(self._remaining_s(self._deadline))
            if descriptor is None:
                self._connection.sendall(data)
            else:  # short, and goes as a whole
                socket.send_fds(self._connection, [data], [descriptor])
        except TimeoutError as error:
            raise QmpTimeoutError("no answer in time") from error
        except OSError as error:
            raise QmpError(f"connection lost: {error}") from error

    def _receive(self, deadline: Deadline | None = None) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_LINE_BYTES:
                raise QmpError("an endless line")
            self._buffer += self._read(deadline or self._deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError as error:
            raise QmpError(f"not JSON: {line[:80]!r}") from error
        if not isinstance(message, dict):
            raise QmpError(f"not an object: {line[:80]!r}")
        return message

    def _read(self, deadline: Deadline) -> bytes:
        try:
            self._connection.settimeout(self._remaining_s(deadline))
            data = self._connection.recv(65536)
        except TimeoutError as error:
            raise QmpTimeoutError("no answer in time") from error
        except OSError as error:
            raise QmpError(f"connection lost: {error}") from error
        if not data:
            raise QmpError("connection closed")
        return data

    @staticmethod
    def _remaining_s(deadline: Deadline) -> float:
        remaining = deadline.at_most(3600.0)
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


@contextmanager
def session_over(
    connection: socket.socket, deadline: Deadline, token: CancelToken | None = None
) -> Iterator[QmpSession]:
    """The same over a connection that is there already, and is closed afterwards."""
    with connection, abandoned_with(connection, token):
        opened = QmpSession(connection, deadline)
        opened.open()
        yield opened
