"""banger's ssh server of a guest at a port of this machine, for clients that know nothing of agents."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from banger.core.ports import GuestProcess


@contextmanager
def served_locally(loop: asyncio.AbstractEventLoop, connect: Callable[[], Awaitable[GuestProcess]]) -> Iterator[int]:
    """Listen on loopback, in the loop of the guest; every connection is passed on to one that ``connect`` makes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = await connect()

        async def pass_out() -> None:
            async for _, data in connection.output():
                writer.write(data)
            writer.close()

        passing = asyncio.create_task(pass_out())
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await connection.write_stdin(data)
        connection.write_eof()
        await connection.close()
        passing.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await passing
        writer.close()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0)

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
