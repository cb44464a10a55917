"""One frame stream over ASGI: frames from the request body, frames into the response body, at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Send

from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import MAX_PAYLOAD, MEDIA_TYPE, FrameReader, FrameType, encode, encode_json

#: Frames read ahead of whoever consumes them; beyond that the caller is made to wait.
_AHEAD = 16


class FrameChannel:
    """Both directions. :meth:`pump` must run as a task for :meth:`next` to return anything."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._frames: asyncio.Queue[tuple[FrameType, bytes] | None] = asyncio.Queue(_AHEAD)
        self.hung_up = asyncio.Event()
        self._started = False
        self._sending = asyncio.Lock()

    async def pump(self) -> None:
        """Read frames until the caller ends its body (``next`` then gives None) or hangs up."""
        reader = FrameReader()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.hung_up.set()
                await self._frames.put(None)
                return
            for frame in reader.feed(message.get("body", b"")):
                await self._frames.put(frame)
            if not message.get("more_body", False):
                await self._frames.put(None)
                await self._await_hang_up()
                return

    async def _await_hang_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.hung_up.set()

    async def next(self) -> tuple[FrameType, bytes] | None:
        """The next frame, or None at the end of the caller's body."""
        return await self._frames.get()

    async def config(self) -> bytes:
        """The payload of the CONFIG frame that every stream begins with."""
        frame = await self.next()
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
        """Send the EXIT frame and end the response."""
        await self.send_json(FrameType.EXIT, value)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, data: bytes) -> None:
        async with self._sending:
            if not self._started:
                self._started = True
                headers = [(b"content-type", MEDIA_TYPE.encode())]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
