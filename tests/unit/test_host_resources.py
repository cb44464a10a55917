from __future__ import annotations

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.host import resources
from banger.host.resources import Memory, check_memory, parse_meminfo

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
