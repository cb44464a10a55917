"""The end of a log, however long it is: a guest decides how much it prints."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.api import vms

LOGS = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\r\n", b"long line"])).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LOGS, st.integers(0, 6), st.integers(1, 9))
def test_tail_is_the_last_lines_however_they_fall_into_pieces(
    tmp_path: Path, data: bytes, lines: int, piece_bytes: int
) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(data)
    expected = b"".join(data.splitlines(keepends=True)[-lines:]) if lines else b""
    if b"\r" in data.replace(b"\r\n", b""):  # splitlines ends lines there too
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vms, "_CHUNK", piece_bytes)
        assert data[vms._tail_offset(log, lines) :] == expected


def test_tail_of_no_log_is_nothing(tmp_path: Path) -> None:
    assert vms._tail_offset(tmp_path / "console.log", 5) == 0


def test_log_of_a_guest_that_writes_faster_than_it_is_read_comes_to_an_end(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 100_000)
    context: Any = SimpleNamespace(store=SimpleNamespace(vms=SimpleNamespace(get=lambda _: None)))

    async def read() -> int:
        total = 0
        async for chunk in vms._log(context, "id", log, 0, follow=False):
            total += len(chunk)
            with log.open("ab") as console:
                console.write(b"y" * 200_000)
        return total

    assert asyncio.run(asyncio.wait_for(read(), 20)) == 100_000
