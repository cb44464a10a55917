"""The daemon's socket is there as long as the daemon is, whatever is removed under it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from banger.daemon.listening import Listening
from banger.layout import Layout


@pytest.fixture
def layout() -> Iterator[Layout]:
    root = Path(tempfile.mkdtemp(prefix="l-"))
    made = Layout.from_environment({"BANGER_HOME": str(root)})
    made.make_directories()
    yield made
    shutil.rmtree(root)


async def answer(_request: Request) -> Response:
    return PlainTextResponse("here")


async def asked(layout: Layout, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    return await asyncio.wait_for(reader.readuntil(b"here"), 10)


def test_socket_that_is_removed_is_made_again_and_who_is_connected_stays_so(layout: Layout) -> None:
    async def scene() -> None:
        listening = Listening(Starlette(routes=[Route("/", answer)]), layout)
        await listening.begin()
        before = await asyncio.open_unix_connection(layout.socket)
        await asked(layout, *before)
        await listening.keep()  # all is well, and nothing changes
        shutil.rmtree(layout.run)
        await listening.keep()
        after = await asyncio.open_unix_connection(layout.socket)
        await asked(layout, *after)
        await asked(layout, *before)
        assert layout.run.stat().st_mode & 0o077 == 0
        for _, writer in (before, after):
            writer.close()
        listening.tell_end()
        await listening.end()

    asyncio.run(scene())


def test_socket_that_somebody_replaced_is_ours_again(layout: Layout) -> None:
    async def scene() -> None:
        listening = Listening(Starlette(routes=[Route("/", answer)]), layout)
        await listening.begin()
        with socket.socket(socket.AF_UNIX) as other:
            layout.socket.rename(layout.run / "aside")  # its inode is not free for the next one
            other.bind(str(layout.socket))
        await listening.keep()
        reader, writer = await asyncio.open_unix_connection(layout.socket)
        await asked(layout, reader, writer)
        writer.close()
        listening.tell_end()
        await listening.end()

    asyncio.run(scene())


def test_directory_that_cannot_be_made_yet_is_waited_for(layout: Layout) -> None:
    async def scene() -> None:
        listening = Listening(Starlette(routes=[Route("/", answer)]), layout)
        await listening.begin()
        shutil.rmtree(layout.run)
        layout.run.write_text("in the way")
        await listening.keep()
        assert not layout.run.is_dir()
        layout.run.unlink()
        await listening.keep()
        reader, writer = await asyncio.open_unix_connection(layout.socket)
        await asked(layout, reader, writer)
        writer.close()
        listening.tell_end()
        await listening.end()

    asyncio.run(scene())
