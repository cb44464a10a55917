"""One frame stream over ASGI: frames from the request body, frames into the response body, at the same time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from loguru import logger
from starlette.types import Receive, Send

from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import (
    MAX_PAYLOAD,
    MEDIA_TYPE,
    STDIN_WINDOW,
    FrameReader,
    FrameType,
    encode,
    encode_json,
)

#: Frames that are not input (signals, sizes) and that nobody has looked at yet.
_MAX_CONTROLS = 1024


class ServerFrameChannel:
    """Both directions. :meth:`pump` must run as a task for anything to arrive.

    Attributes:
        fault: which rule it broke.
        is_input_empty: standard input has ended, and there was none.

    The pump never waits for a consumer, so that it hears a signal, and the caller hanging up, behind input that
    nobody reads; the window of standard input bounds what it holds meanwhile.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._inputs: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._controls: asyncio.Queue[tuple[FrameType, bytes] | None] = asyncio.Queue(_MAX_CONTROLS)
        self._held = 0
        self._was_put = False
        self.is_input_empty = False
        self.fault: BangerError | None = None
        self._started = False
        self._finished = False
        self._sending = asyncio.Lock()

    async def pump(self) -> None:
        """Sort frames into input and the rest until the caller hangs up (or breaks the rules, which ends it too)."""
        reader = FrameReader()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
            try:
                for kind, payload in reader.feed(message.get("body", b"")):
                    self._sort(kind, payload)
            except BangerError as error:
                logger.warning("a caller's frames were refused: {}", error)
                self.fault = error
                break
            more = message.get("more_body", False)
        else:
            with suppress(asyncio.QueueFull):  # then nobody waits for one
                self._controls.put_nowait(None)
            while (await self._receive())["type"] != "http.disconnect":
                pass

    def _sort(self, kind: FrameType, payload: bytes) -> None:
        match kind:
            case FrameType.STDIN:
                self._held += len(payload)
                self._was_put = True
                if self._held > STDIN_WINDOW + MAX_PAYLOAD:
                    raise BangerError(ErrorKind.USAGE, "more standard input was sent than the window allows")
                self._inputs.put_nowait(payload)
            case FrameType.STDIN_EOF:
                self.is_input_empty = not self._was_put
                self._inputs.put_nowait(None)
            case _ if self._controls.full():
                raise BangerError(ErrorKind.USAGE, f"more than {_MAX_CONTROLS} frames wait for their turn")
            case _:
                self._controls.put_nowait((kind, payload))

    async def next_input(self) -> bytes | None:
        """The next piece of standard input, or None at its end. Say :meth:`taken` once it is passed on."""
        return await self._inputs.get()

    async def taken(self, size: int) -> None:
        """Open the window again by ``size`` bytes."""
        self._held -= size
        await self.send_json(FrameType.ACK, size)

    async def next_control(self) -> tuple[FrameType, bytes] | None:
        """The next frame that is not input, or None once the request has ended."""
        return await self._controls.get()

    async def config(self) -> bytes:
        """The payload of the CONFIG frame that every stream begins with."""
        frame = await self.next_control()
        if frame is None or frame[0] is not FrameType.CONFIG:
            raise BangerError(ErrorKind.USAGE, "a frame stream begins with a CONFIG frame")
        return frame[1]

    async def send(self, kind: FrameType, payload: bytes = b"") -> None:
        """Send one frame (cut into several if it is long), waiting while the caller does not take it."""
        for start in range(0, max(len(payload), 1), MAX_PAYLOAD):
            await self._write(encode(kind, payload[start : start + MAX_PAYLOAD]))

    async def send_json(self, kind: FrameType, value: Any) -> None:
        """Send one frame with a JSON payload."""
        await self._write(encode_json(kind, value))

    async def finish(self, value: Any) -> None:
        """Send the EXIT frame and end the response. What comes second is not sent."""
        if self._finished:
            return
        self._finished = True
        await self._write(encode_json(FrameType.EXIT, value), is_last=True)

    async def _write(self, data: bytes, *, is_last: bool = False) -> None:
        async with self._sending:
            if not self._started:
                self._started = True
                headers = [(b"content-type", MEDIA_TYPE.encode())]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})
