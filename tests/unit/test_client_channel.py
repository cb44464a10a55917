"""Frames flow both ways at once, whatever the sizes, and an early end is noticed."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress

import pytest

from banger.client import Client
from banger.client.channel import ClientFrameChannel, exit_of
from banger.client.http1 import encode_chunk
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import MAX_PAYLOAD, STDIN_WINDOW, FrameReader, FrameType, encode_json
from tests.support.fake_api import FakeApi, FrameSession

pytest_plugins = ("tests.support.cli_fixtures",)
PATH = "/v1/vms/web/exec"


def echo(session: FrameSession) -> None:
    session.started()
    while (frame := session.receive()) is not None and frame[0] is not FrameType.STDIN_EOF:
        session.send(FrameType.STDOUT, frame[1])
    session.exit(7)


def test_large_input_and_output_cross_without_deadlock(api: FakeApi) -> None:
    api.on("POST", PATH, talk=echo)
    data = bytes(range(256)) * (4 * MAX_PAYLOAD // 256 + 3)
    channel = Client(api.path).frames(PATH, {"argv": ["cat"]})
    assert channel.send_stdin(data)
    channel.put(FrameType.STDIN_EOF)
    output = bytearray()
    while (frame := channel.receive(10)) is not None and frame[0] is not FrameType.EXIT:
        output += frame[1] if frame[0] is FrameType.STDOUT else b""
    channel.close()
    assert frame is not None
    assert exit_of(frame[1]) == {"code": 7, "signal": ""}
    assert bytes(output) == data
    assert max(len(payload) for _, payload in api.calls[0].frames) <= MAX_PAYLOAD


def test_sender_learns_that_the_other_side_has_ended(api: FakeApi) -> None:
    api.on("POST", PATH, talk=lambda session: session.fail(kind="exhausted", message="no room"))
    channel = Client(api.path).frames(PATH, {})
    while channel.send_stdin(b"x" * MAX_PAYLOAD):
        pass
    frame = channel.receive(10)
    channel.close()
    assert frame is not None
    with pytest.raises(BangerError, match="no room"):
        exit_of(frame[1])


def test_refused_stream_raises_the_answer(api: FakeApi) -> None:
    api.fail("POST", PATH, 404, kind="not_found", message='VM "web" not found')
    channel = Client(api.path).frames(PATH, {})
    with pytest.raises(BangerError, match="not found"):
        channel.receive(10)
    channel.close()


def test_stream_cut_short_has_an_unknown_outcome(api: FakeApi) -> None:
    api.on("POST", PATH, talk=lambda session: session.started(), cut=True)
    channel = Client(api.path).frames(PATH, {})
    assert channel.receive(10) is not None
    with pytest.raises(BangerError) as raised:
        channel.receive(10)
    channel.close()
    assert raised.value.kind is ErrorKind.UNKNOWN_OUTCOME


def test_receive_gives_up_after_its_time(api: FakeApi) -> None:
    api.on("POST", PATH, talk=lambda session: session.wait_for(FrameType.STDIN_EOF))
    channel = Client(api.path).frames(PATH, {})
    assert channel.receive(0.02) is None
    assert not channel.ended
    channel.close()


def test_sender_keeps_to_the_window_of_a_command_that_reads_late() -> None:
    """The daemon ends a session whose caller sends more than the window while the command does not read."""
    ours, theirs = socket.socketpair()
    most_under_way: list[int] = []
    server = threading.Thread(target=_take_late, args=(theirs, most_under_way))
    server.start()
    channel = ClientFrameChannel(ours, PATH, {})
    sent = channel.send_stdin(bytes(5 * STDIN_WINDOW))
    channel.close()
    server.join()
    assert sent
    assert len(most_under_way) > 3
    assert max(most_under_way) <= STDIN_WINDOW + MAX_PAYLOAD


def _take_late(connection: socket.socket, most_under_way: list[int]) -> None:
    """A daemon that acknowledges only when its caller has fallen silent."""
    reader, body = FrameReader(), bytearray()
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with connection, suppress(OSError):
        while True:
            held = 0
            while select.select([connection], [], [], 0.2)[0]:
                if not (data := connection.recv(1 << 20)):
                    return
                body += data
                held += sum(len(payload) for kind, payload in _frames(reader, body) if kind is FrameType.STDIN)
            most_under_way.append(held)
            connection.sendall(encode_chunk(encode_json(FrameType.ACK, held)))


def _frames(reader: FrameReader, body: bytearray) -> list[tuple[FrameType, bytes]]:
    """The frames of the chunks that are complete in ``body``, which are taken out of it."""
    found: list[tuple[FrameType, bytes]] = []
    if (head := body.find(b"\r\n\r\n")) >= 0 and body.startswith(b"POST"):
        del body[: head + 4]
    while (end := body.find(b"\r\n")) >= 0 and len(body) >= end + 4 + int(body[:end], 16):
        size = int(body[:end], 16)
        found += reader.feed(bytes(body[end + 2 : end + 2 + size]))
        del body[: end + 4 + size]
    return found
