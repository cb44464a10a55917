"""The queue between a guest's output and its reader."""

from __future__ import annotations

import asyncio

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import Stream
from banger.guest.session_output import HIGH_WATER, LOW_WATER, OutputQueue

WINDOW = 512 << 10


class Sender:
    """What asyncssh is to the queue, with an endless output behind it.

    While it is paused it holds back what comes, up to its window; the first chunk it hands over once less than half of
    the window is left opens the whole window again.
    """

    def __init__(self) -> None:
        self.queue = OutputQueue(self.pause, self.resume)
        self.held: list[bytes] = []
        self.window = WINDOW
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        while self.held and not self.paused:
            self._deliver(self.held.pop(0))

    def send(self, data: bytes) -> bool:
        if len(data) > self.window:
            return False
        self.window -= len(data)
        if self.paused:
            self.held.append(data)
        else:
            self._deliver(data)
        return True

    def _deliver(self, data: bytes) -> None:
        if self.window < WINDOW // 2:
            self.window = WINDOW
        self.queue.put(Stream.STDOUT, data)


async def drain(queue: OutputQueue) -> list[tuple[Stream, bytes]]:
    return [chunk async for chunk in aiter_of(queue)]


async def aiter_of(queue: OutputQueue):
    while (chunk := await queue.get()) is not None:
        yield chunk


def test_output_queue_two_streams_keep_their_order_and_stay_apart() -> None:
    async def scenario() -> list[tuple[Stream, bytes]]:
        sender = Sender()
        for stream, data in (
            (Stream.STDOUT, b"a"),
            (Stream.STDOUT, b"b"),
            (Stream.STDERR, b"c"),
            (Stream.STDOUT, b"d"),
        ):
            sender.queue.put(stream, data)
        sender.queue.end()
        return await drain(sender.queue)

    assert asyncio.run(scenario()) == [(Stream.STDOUT, b"ab"), (Stream.STDERR, b"c"), (Stream.STDOUT, b"d")]


def test_output_queue_reader_always_late_loses_nothing_and_what_waits_is_bounded() -> None:
    async def scenario() -> None:
        sender = Sender()
        sent, received, most = bytearray(), bytearray(), 0
        for _ in range(60):
            while sender.send(chunk := bytes([len(sent) // 16_000 % 251]) * 16_000):
                sent += chunk
            most = max(most, len(sent) - len(received))
            read = await asyncio.wait_for(sender.queue.get(), 1)
            assert read is not None
            received += read[1]
        sender.queue.end()
        received += b"".join([data for _, data in await drain(sender.queue)] + sender.held)
        assert received == sent
        assert len(sent) > 60 * LOW_WATER
        assert most <= LOW_WATER + 2 * WINDOW

    asyncio.run(scenario())


def test_output_queue_reader_that_waits_is_woken() -> None:
    async def scenario() -> tuple[Stream, bytes] | None:
        sender = Sender()
        reading = asyncio.create_task(sender.queue.get())
        await asyncio.sleep(0)
        sender.send(b"x")
        return await asyncio.wait_for(reading, 1)

    assert asyncio.run(scenario()) == (Stream.STDOUT, b"x")


def test_output_queue_lost_connection_gives_what_came_and_then_the_error() -> None:
    async def scenario() -> None:
        sender = Sender()
        sender.send(b"last words")
        sender.queue.end(BangerError(ErrorKind.UNKNOWN_OUTCOME, "lost"))
        sender.queue.end()
        assert await sender.queue.get() == (Stream.STDOUT, b"last words")
        for _ in range(2):
            with pytest.raises(BangerError, match="lost"):
                await sender.queue.get()

    asyncio.run(scenario())


def test_output_queue_discarding_lets_a_stopped_sender_finish() -> None:
    async def scenario() -> None:
        sender = Sender()
        while sender.send(bytes(16_000)):
            pass
        assert sender.paused
        assert sender.held
        sender.queue.discard()
        assert not sender.paused
        assert not sender.held
        sender.queue.end()
        assert await sender.queue.get() is None

    asyncio.run(scenario())


def test_output_queue_after_the_end_does_not_restart_the_sender() -> None:
    async def scenario() -> None:
        sender = Sender()
        sender.send(bytes(HIGH_WATER + 1))
        sender.queue.end(BangerError(ErrorKind.UNKNOWN_OUTCOME, "lost"))
        await sender.queue.get()
        assert sender.paused

    asyncio.run(scenario())
