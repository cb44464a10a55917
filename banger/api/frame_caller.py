"""The caller at the other end of a frame stream, as the services of :mod:`banger.sessions` see it."""

from __future__ import annotations

import json

from loguru import logger

from banger.api.frame_channel import ServerFrameChannel
from banger.core import codec
from banger.core.errors import BangerError
from banger.core.exec import Stream
from banger.core.frames import FrameType
from banger.core.models import Vm
from banger.core.progress import OperationEvent
from banger.sessions.caller import Resize, Signal


class FrameCaller:
    """Implements :class:`banger.sessions.caller.Caller`: each of its words is a frame."""

    def __init__(self, channel: ServerFrameChannel) -> None:
        self._channel = channel

    @property
    def has_input(self) -> bool:
        """False if STDIN_EOF has come, and nothing before it."""
        return not self._channel.is_input_empty

    async def next_input(self) -> bytes | None:
        """STDIN frames, until STDIN_EOF."""
        return await self._channel.next_input()

    async def taken(self, size: int) -> None:
        """An ACK frame."""
        await self._channel.taken(size)

    async def next_control(self) -> Signal | Resize | None:
        """SIGNAL and RESIZE frames. One that makes no sense is told in the log, and the next is heard all the same."""
        while (frame := await self._channel.next_control()) is not None:
            kind, payload = frame
            try:
                match kind:
                    case FrameType.SIGNAL:
                        return Signal(payload.decode("ascii", "replace"))
                    case FrameType.RESIZE:
                        size = json.loads(payload)
                        return Resize(int(size["rows"]), int(size["columns"]))
                    case _:
                        logger.debug("a {} frame has no meaning here", kind.name)
            except (BangerError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                logger.warning("a {} frame was ignored: {}", kind.name, error)
        return None

    async def put_output(self, stream: Stream, data: bytes) -> None:
        """STDOUT and STDERR frames."""
        await self._channel.send(FrameType.STDERR if stream is Stream.STDERR else FrameType.STDOUT, data)

    async def put_event(self, event: OperationEvent) -> None:
        """An EVENT frame."""
        await self._channel.send_json(FrameType.EVENT, codec.to_plain(event))

    async def put_started(self, vm: Vm) -> None:
        """A STARTED frame."""
        await self._channel.send_json(FrameType.STARTED, {"vm_id": vm.id, "vm_name": vm.name})
