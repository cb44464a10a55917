"""What the channels of quiet guests cost the daemon in memory, in a process that does nothing else.

``python -m bench.idle_channels SOCKET...`` connects to an agent behind each and prints the KiB that one takes.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from banger.agent.endpoint import Endpoint
from banger.agent.link import AgentLink
from tests.support.scripted_agent import ScriptedAgent

_CONNECT_S = 20.0


def idle_kib(root: Path, count: int) -> float:
    """KiB of resident memory per guest that is connected and quiet, of ``count``; their agents are played."""
    return asyncio.run(_measure([root / f"agent-{number}" for number in range(count)]))


async def _measure(sockets: Sequence[Path]) -> float:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ScriptedAgent(reader, writer).meet()
        await reader.read()
        writer.close()

    servers = [await asyncio.start_unix_server(serve, one) for one in sockets]
    argv = [sys.executable, "-m", "bench.idle_channels", *map(str, sockets)]
    process = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    for server in servers:
        server.close()
    return float(printed)


async def _connect_all(sockets: Sequence[str]) -> float:
    first, *others = [AgentLink(f"vm-{number}", Endpoint(Path(one))) for number, one in enumerate(sockets)]
    await first.connect(_CONNECT_S)  # what all share is loaded with it
    before = _rss_kib()
    for link in others:
        await link.connect(_CONNECT_S)
    gc.collect()
    cost = (_rss_kib() - before) / len(others)
    for link in (first, *others):
        link.drop("measured")
    return cost


def _rss_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split("VmRSS:")[1].split()[0])


if __name__ == "__main__":
    print(asyncio.run(_connect_all(sys.argv[1:])))
