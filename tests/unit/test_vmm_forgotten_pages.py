"""With this process in the place of a VMM."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from banger.core.models import ProcessIdentity
from banger.vmm.qemu.forgotten_pages import GuestMemory, guest_memory

SIZE = 8 << 20
PAGE = 4096


@dataclass
class Monitor:
    """Answers where the guest's memory is."""

    answer: str

    def execute(self, command: str, arguments: object) -> Any:
        assert (command, arguments) == ("human-monitor-command", {"command-line": "gpa2hva 0"})
        return self.answer


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, int]]:
    """Private and of nobody yet, and where it is."""
    area = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = ctypes.c_char.from_buffer(area)
    yield area, ctypes.addressof(view)
    del view
    area.close()


def looked_at(base: int) -> Iterator[GuestMemory | None]:
    monitor = Monitor(f"Host virtual address for 0x0 (microvm.ram) is {base:#x}\r\n")
    with guest_memory(monitor, ProcessIdentity(os.getpid(), 0, "", ""), SIZE >> 20) as found:  # type: ignore[arg-type]
        yield found


def complete(base: int, saved: Path) -> int:
    (found,) = (one and one.complete(saved) for one in looked_at(base))
    assert found is not None
    return found


def test_pages_that_differ_are_written_and_no_others(memory: tuple[mmap.mmap, int], tmp_path: Path) -> None:
    area, base = memory
    saved = tmp_path / "memory"
    area[0:5] = b"early"
    area[3 * PAGE : 3 * PAGE + 4] = b"same"
    saved.write_bytes(area[:])
    area[5 * PAGE : 5 * PAGE + 4] = b"late"
    area[SIZE - 4 : SIZE] = b"last"
    area[0:5] = b"later"
    assert complete(base, saved) == 3
    assert saved.read_bytes() == area[:]
    assert complete(base, saved) == 0


def test_memory_that_was_only_read_stays_a_hole(memory: tuple[mmap.mmap, int], tmp_path: Path) -> None:
    area, base = memory
    saved = tmp_path / "memory"
    with saved.open("wb") as file:
        file.truncate(SIZE)
    assert not any(area[offset] for offset in range(0, SIZE, PAGE))
    area[2 * PAGE] = 1
    assert complete(base, saved) == 1
    assert saved.stat().st_blocks * 512 < SIZE // 2


def test_process_that_may_not_be_looked_into_gives_none() -> None:
    monitor = Monitor("Host virtual address for 0x0 (pc.ram) is 0x1000\r\n")
    with guest_memory(monitor, ProcessIdentity(0, 0, "", ""), 1) as found:  # type: ignore[arg-type]
        assert found is None
    with guest_memory(Monitor("No memory"), ProcessIdentity(os.getpid(), 0, "", ""), 1) as found:  # type: ignore[arg-type]
        assert found is None
