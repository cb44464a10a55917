from __future__ import annotations

import os
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.host import resources
from banger.host.resources import Memory, check_disk, check_memory, parse_meminfo

HOST = Memory(total_mib=24049, available_mib=20000)


def test_parse_meminfo_reads_kib_as_mib() -> None:
    text = "MemTotal:       24626176 kB\nMemFree:         1 kB\nMemAvailable:   20480000 kB\nHugePages_Total:       0\n"
    assert parse_meminfo(text) == Memory(24049, 20000)


def test_parse_meminfo_of_a_kernel_without_an_estimate_takes_the_total() -> None:
    assert parse_meminfo("MemTotal:       2048 kB\n") == Memory(2, 2)


def test_memory_of_this_host_is_plausible() -> None:
    memory = resources.memory()
    assert 0 < memory.available_mib <= memory.total_mib


@pytest.mark.parametrize("memory_mib", [1, 24049])
def test_check_memory_of_what_the_host_has_passes(memory_mib: int) -> None:
    check_memory(memory_mib, HOST)


def test_check_memory_of_more_is_exhausted_with_both_numbers() -> None:
    with pytest.raises(BangerError) as caught:
        check_memory(999999, HOST)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert "asks for 999999 MiB of memory; this host has 24049 MiB" in caught.value.message
    assert "--memory" in caught.value.hint


def test_check_disk_of_what_fits_passes_also_below_a_directory_not_made_yet(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "yet", 1)


def test_check_disk_of_more_is_exhausted_and_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(BangerError) as caught:
        check_disk(tmp_path, 1 << 60)
    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert str(tmp_path) in caught.value.message


def test_cpu_count_follows_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 6})
    assert resources.cpu_count() == 3
