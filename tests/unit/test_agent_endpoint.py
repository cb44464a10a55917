"""Opening the stream to an agent: a plain socket, or one that wants to be asked for a port first."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from banger.agent import endpoint
from banger.agent.endpoint import Endpoint, connect


class Heard(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = bytearray()
        self.came = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()


async def opened(path: Path, answer: bytes, *, port: int = 1024, stays: bool = True) -> tuple[Heard, bytes]:
    """Connect to a machine that answers so; what was heard of the guest, and what the machine was told."""
    told = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if port:
            told.extend(await reader.readline())
        writer.write(answer)
        await writer.drain()
        if stays:
            await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        heard = await connect(Endpoint(path, port), Heard)
        await asyncio.wait_for(heard.came.wait(), 5)
        return heard, bytes(told)
    finally:
        server.close()


def test_stream_begins_right_behind_the_answer_of_the_machine(tmp_path: Path) -> None:
    heard, told = asyncio.run(opened(tmp_path / "s", b"OK 1073741824\nfirst words"))
    assert (told, bytes(heard.data)) == (b"CONNECT 1024\n", b"first words")


def test_socket_that_is_the_stream_itself_is_asked_nothing(tmp_path: Path) -> None:
    heard, told = asyncio.run(opened(tmp_path / "s", b"first words", port=0))
    assert (told, bytes(heard.data)) == (b"", b"first words")


@pytest.mark.parametrize("answer", [b"", b"OK 1", b"NO 1\n", b"x" * 100, b"\n"])
def test_answer_that_is_none_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(OSError, match=r"listens|not an answer"):
        asyncio.run(opened(tmp_path / "s", answer, stays=False))


def test_machine_whose_guest_has_no_driver_yet_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "ANSWER_TIMEOUT_S", 0.05)
    with pytest.raises(TimeoutError):
        asyncio.run(opened(tmp_path / "s", b""))
