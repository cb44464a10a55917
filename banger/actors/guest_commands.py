"""Commands of banger's own in a guest: run to their end, with a bounded part of what they say."""

from __future__ import annotations

from banger.core.ports import GuestProcess

#: What is kept of a command's words, in bytes: their end.
_MOST_WORDS = 2000


async def run_to_end(process: GuestProcess, given: bytes = b"") -> tuple[int, str]:
    """Give a command its input, if it takes any, and wait for its end; its exit code, and its last words.

    It is ended if that fails, and raises what :class:`GuestProcess` does then.
    """
    said = b""
    try:
        if given:
            await process.write_stdin(given)
        process.write_eof()
        async for _, data in process.output():
            said = (said + data)[-_MOST_WORDS:]
        status = await process.wait()
    finally:
        await process.close()
    return status.code, said.decode(errors="replace").strip()
