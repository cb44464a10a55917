"""Signals and sizes on their way to a command."""

from __future__ import annotations

import asyncio

import pytest

from banger.api.frame_caller import FrameCaller
from banger.core.frames import FrameType
from banger.sessions.caller import Resize, Signal


class Controls:
    """Gives these frames and then no more."""

    def __init__(self, *frames: tuple[FrameType, bytes]) -> None:
        self._frames = [*frames]

    async def next_control(self) -> tuple[FrameType, bytes] | None:
        return self._frames.pop(0) if self._frames else None


@pytest.mark.parametrize(
    "odd",
    [
        (FrameType.SIGNAL, b"NONSENSE"), (FrameType.SIGNAL, b"\xff"), (FrameType.RESIZE, b""), (FrameType.RESIZE, b"[]"),
        (FrameType.RESIZE, b"{}"), (FrameType.RESIZE, b'{"rows": "a", "columns": 1}'), (FrameType.RESIZE, b"[" * 100_000),
        (FrameType.RESIZE, b'{"rows": 1e999, "columns": 1}'), (FrameType.RESIZE, b'{"rows": 65536, "columns": 1}'),
        (FrameType.EVENT, b""),
    ],
)  # fmt: skip
def test_frame_that_makes_no_sense_does_not_keep_the_next_from_being_heard(odd: tuple[FrameType, bytes]) -> None:
    async def heard() -> list[object]:
        controls = Controls(odd, (FrameType.SIGNAL, b"TERM"), (FrameType.RESIZE, b'{"rows": 24, "columns": 80}'))
        caller = FrameCaller(controls)  # type: ignore[arg-type]
        return [await caller.next_control(), await caller.next_control(), await caller.next_control()]

    assert asyncio.run(heard()) == [Signal("TERM"), Resize(24, 80), None]
