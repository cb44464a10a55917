"""Bytes of an ssh client: whoever goes first, the process between ssh and the daemon ends, and waits without work."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from banger.client.channel import HIGH_WATER
from banger.commands.ssh_relay import relay
from banger.core.frames import FrameType

#: Turns of a loop that waits for what happens; one that does not takes more within a hundredth of a second.
MOST_TURNS = 200


class Channel:
    """The daemon's side: a socket to poll, and frames that have come. It counts the turns of who polls it."""

    def __init__(self, *arrived: tuple[FrameType, bytes]) -> None:
        self.ours, self.daemon = socket.socketpair()
        self._arrived = list(arrived)
        self._turns = 0
        self.put_frames: list[FrameType] = []
        self.takes_stdin, self.ended = True, False

    def fileno(self) -> int:
        return self.ours.fileno()

    @property
    def unsent(self) -> int:
        self._turns += 1
        assert self._turns < MOST_TURNS, "it does not wait"
        return 0

    def receive(self, _timeout_s: float) -> tuple[FrameType, bytes] | None:
        return self._arrived.pop(0) if self._arrived else None

    def take(self) -> list[tuple[FrameType, bytes]]:
        return [] if self.ours.recv(4096) else [(FrameType.EXIT, b"{}")]

    def put(self, kind: FrameType, _payload: bytes = b"") -> None:
        self.put_frames.append(kind)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.ours.close()
        self.daemon.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, client = socket.socketpair()
    with ours, client:
        yield ours, client


@pytest.mark.parametrize("takes_stdin", [True, False])
def test_client_that_is_gone_ends_the_relay_though_the_guest_says_nothing(
    pair: tuple[socket.socket, socket.socket], *, takes_stdin: bool
) -> None:
    """A VM that is paused answers neither what ssh said last nor that it is gone."""
    ours, client = pair
    channel = Channel()
    channel.takes_stdin = takes_stdin
    client.sendall(b"bye")
    client.close()
    relay(channel, ours)  # type: ignore[arg-type]
    assert channel.put_frames == [FrameType.STDIN, FrameType.STDIN_EOF] * takes_stdin
    channel.close()


@pytest.mark.parametrize("is_told", [True, False], ids=["exit", "connection lost"])
def test_client_that_stands_still_is_waited_for_without_work_once_the_daemon_is_gone(
    pair: tuple[socket.socket, socket.socket], *, is_told: bool
) -> None:
    ours, client = pair
    data = b"x" * (4 * HIGH_WATER)
    channel = Channel((FrameType.STDOUT, data), *[(FrameType.EXIT, b"{}")] * is_told)
    channel.daemon.close()
    received = bytearray()

    def read_all() -> None:
        while piece := client.recv(65536):
            received.extend(piece)

    reader = threading.Timer(0.2, read_all)
    reader.start()
    try:
        relay(channel, ours)  # type: ignore[arg-type]
    finally:
        ours.close()
        reader.join()
        channel.close()
    assert bytes(received) == data
