from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from banger.core.cancel import Deadline
from banger.vmm.qemu import qmp

GREETING = {"QMP": {"version": {}, "capabilities": []}}
EVENT = {"event": "RESUME", "timestamp": {}}


class Server:
    """Plays QEMU's side: sends the script's messages, one batch whenever a command came in."""

    def __init__(self, path: Path) -> None:
        self.commands: list[str] = []
        self.batches: list[list[object]] = [[GREETING], [{"return": {}}]]
        self.hang_up = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError, ValueError), self._listener.accept()[0] as client, client.makefile("rwb") as stream:
            for batch in self.batches:
                for message in batch:
                    stream.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\r\n")
                stream.flush()
                if batch is not self.batches[-1] or not self.hang_up:
                    self.commands.append(json.loads(stream.readline())["execute"])
            if not self.hang_up:
                stream.read()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory, "qmp.sock")


@pytest.fixture
def server(path: Path) -> Iterator[Server]:
    server = Server(path)
    yield server
    server.close()


def test_session_negotiates_before_the_first_command(server: Server, path: Path) -> None:
    server.batches.append([{"return": {"status": "running"}}])
    with qmp.session(path, Deadline.after(5.0)) as session:
        assert session.execute("query-status") == {"status": "running"}
    assert server.commands[:2] == ["qmp_capabilities", "query-status"]


def test_events_between_command_and_answer_are_skipped(server: Server, path: Path) -> None:
    server.batches.append([EVENT, EVENT, {"return": 7}])
    with qmp.session(path, Deadline.after(5.0)) as session:
        assert session.execute("stop") == 7


def test_answers_to_whoever_asked_before_and_went_away_are_nobodys(server: Server, path: Path) -> None:
    """Of a QEMU that was too busy to answer in time."""
    server.batches[0].insert(0, {"return": {}, "id": "of another"})
    server.batches.append([{"return": {}, "id": "of another"}, {"error": {}, "id": "of another"}, {"return": 7}])
    with qmp.session(path, Deadline.after(5.0)) as session:
        assert session.execute("query-status") == 7


def test_answer_in_pieces_is_put_together(server: Server, path: Path) -> None:
    server.batches.append([b'{"ret', b'urn": "', b"x" * 70000, b'"}\n'])
    with qmp.session(path, Deadline.after(5.0)) as session:
        assert len(session.execute("query-schema")) == 70000


def test_refused_command_raises_in_qemus_words(server: Server, path: Path) -> None:
    server.batches.append([{"error": {"class": "CommandNotFound", "desc": "no coffee"}}])
    with qmp.session(path, Deadline.after(5.0)) as session, pytest.raises(qmp.QmpError, match="brew: no coffee"):
        session.execute("brew")


def test_silence_ends_at_the_deadline(server: Server, path: Path) -> None:
    with pytest.raises(qmp.QmpTimeoutError), qmp.session(path, Deadline.after(0.1)) as session:
        session.execute("query-status")


def test_connection_closed_in_the_middle_raises(server: Server, path: Path) -> None:
    server.hang_up = True
    with pytest.raises(qmp.QmpError, match="connection"), qmp.session(path, Deadline.after(5.0)) as session:
        session.execute("query-status")


@pytest.mark.parametrize("noise", [b"hello\n", b"[1]\n", b'{"QMQ": 1}\n', b"x" * (2 << 20)])
def test_something_else_behind_the_socket_raises(server: Server, path: Path, noise: bytes) -> None:
    server.batches[0] = [noise]
    with pytest.raises(qmp.QmpError), qmp.session(path, Deadline.after(5.0)):
        pass


def test_nobody_behind_the_socket_raises(path: Path) -> None:
    with pytest.raises(qmp.QmpError, match="cannot connect"), qmp.session(path, Deadline.after(5.0)):
        pass


def test_session_tells_the_version_as_the_program_does(server: Server, path: Path) -> None:
    version = {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "Debian 1:7.2"}
    server.batches[0] = [{"QMP": {"version": version, "capabilities": []}}]
    with qmp.session(path, Deadline.after(5.0)) as session:
        assert session.version == "QEMU emulator version 7.2.22 (Debian 1:7.2)"


def test_wait_for_an_event_ends_at_once_with_one_that_came_before_and_else_in_time(server: Server, path: Path) -> None:
    server.batches.append([EVENT, {"return": {}}])
    with qmp.session(path, Deadline.after(60.0)) as session:
        session.execute("query-status")
        began = time.monotonic()
        session.wait_for_event(30.0)
        session.wait_for_event(0.01)
        assert time.monotonic() - began < 20.0


def test_session_over_a_connection_hands_over_an_open_file() -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    got: list[int] = []

    def serve() -> None:
        with theirs:
            theirs.sendall(json.dumps(GREETING).encode() + b"\n")
            theirs.recv(4096)
            theirs.sendall(b'{"return": {}}\n')
            got.extend(socket.recv_fds(theirs, 4096, 1)[1])
            theirs.sendall(b'{"return": {}}\n')

    thread = threading.Thread(target=serve)
    thread.start()
    with qmp.session_over(ours, Deadline.after(20.0)) as session:
        session.execute("getfd", {"fdname": "state"}, descriptor=writing)
    thread.join()
    os.close(writing)
    os.write(got[0], b"here")
    os.close(got[0])
    assert os.read(reading, 10) == b"here"
    os.close(reading)
