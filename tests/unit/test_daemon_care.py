"""What the daemon does on a tick goes on whatever one of its parts meets."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace

from banger.daemon import main as daemon


def test_console_that_cannot_be_cut_does_not_keep_the_others_from_being(monkeypatch) -> None:
    cut = []

    def bound(path: Path, limit_bytes: int) -> None:
        if path.name == "bad":
            raise OSError(errno.ENOSPC, "No space left on device")
        cut.append((path.name, limit_bytes))

    monkeypatch.setattr(daemon, "bound", bound)
    daemon._bound_all([(Path("bad"), 1), (Path("good"), 2)])
    assert cut == [("good", 2)]


def test_guard_looks_even_if_looking_after_time_fails_every_time(monkeypatch) -> None:
    guarded: list[None] = []

    def look() -> None:
        raise RuntimeError("a bug")

    async def main() -> None:
        monkeypatch.setattr(daemon, "HOUSEKEEPING_INTERVAL_S", 0.001)
        loop, enough = asyncio.get_running_loop(), asyncio.Event()

        def guard() -> None:
            guarded.append(None)
            if len(guarded) == 3:
                loop.call_soon_threadsafe(enough.set)

        services = SimpleNamespace(
            housekeeper=SimpleNamespace(chores=(look, guard)), templates=SimpleNamespace(tick=lambda: None)
        )
        task = asyncio.create_task(daemon._keep_house(services))
        await enough.wait()
        task.cancel()

    asyncio.run(asyncio.wait_for(main(), 20))
