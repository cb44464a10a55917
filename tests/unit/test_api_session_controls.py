"""Signals and sizes on their way to a command."""

from __future__ import annotations

import asyncio

import pytest

from banger.api import sessions
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType


class Controls:
    """Gives these frames and then no more."""

    def __init__(self, *frames: tuple[FrameType, bytes]) -> None:
        self._frames = [*frames]

    async def next_control(self) -> tuple[FrameType, bytes] | None:
        return self._frames.pop(0) if self._frames else None


class Command:
    """Takes the signals that there are."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def send_signal(self, name: str) -> None:
        if name != "TERM":
            raise BangerError(ErrorKind.USAGE, f'"{name}" is not a signal')
        self.heard.append(name)

    def resize(self, rows: int, columns: int) -> None:
        self.heard.append((rows, columns))


@pytest.mark.parametrize(
    "odd",
    [
        (FrameType.SIGNAL, b"NONSENSE"), (FrameType.SIGNAL, b"\xff"), (FrameType.RESIZE, b""), (FrameType.RESIZE, b"[]"),
        (FrameType.RESIZE, b"{}"), (FrameType.RESIZE, b'{"rows": "a", "columns": 1}'), (FrameType.RESIZE, b"[" * 100_000),
        (FrameType.RESIZE, b'{"rows": 1e999, "columns": 1}'), (FrameType.EVENT, b""),
    ],
)  # fmt: skip
def test_frame_that_makes_no_sense_does_not_keep_the_next_from_being_heard(odd: tuple[FrameType, bytes]) -> None:
    command = Command()
    controls = Controls(odd, (FrameType.SIGNAL, b"TERM"), (FrameType.RESIZE, b'{"rows": 24, "columns": 80}'))
    asyncio.run(sessions._control(controls, command))  # type: ignore[arg-type]
    assert command.heard == ["TERM", (24, 80)]
