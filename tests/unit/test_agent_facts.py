"""The figures that a guest tells: read as they are meant, and harmless whatever they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from banger.agent.facts import read_facts
from banger.agent.wire import WireError
from banger.core.codec import MOST, to_plain
from banger.core.guest_facts import CpuFacts, DiskFacts, MemoryFacts, NetFacts
from banger.core.plain_text import printable
from tests.support.agent_lines import lines_like

TEXT = b"""clock 1700000000000000001
uptime 5000
kernel 6.1.0-13-amd64
hostname web
machine-id 0123456789abcdef0123456789abcdef
boot-id 11111111-2222-3333-4444-555555555555
cpus 2
load 0.50 1.25 2.00
cpu 100 10 20 900 50 1 2 3
processes 42 1
memory 1000 200 600 300 50 40
disk / overlay 5000 3000 2500 100 90
disk /a\\040b ext4 1 1 1 1 1
net eth0 52:54:00:12:34:56 1500 up 77 88
net lo - 65536 down 0 0
address eth0 10.0.2.15/24
address eth0 fe80::1/64
address gone 1.2.3.4/8
agent 102400 3
of-a-later-version x y z
"""


def test_figures_are_read_as_they_are_written() -> None:
    facts = read_facts(TEXT)
    assert (facts.clock_ns, facts.uptime_ms, facts.kernel) == (1700000000000000001, 5000, "6.1.0-13-amd64")
    assert (facts.hostname, facts.machine_id) == ("web", "0123456789abcdef0123456789abcdef")
    assert (facts.load1, facts.load5, facts.load15) == (0.5, 1.25, 2.0)
    assert (facts.processes, facts.running) == (42, 1)
    assert facts.cpu == CpuFacts(count=2, busy_ms=136, total_ms=1086)  # waiting for a disk is idle
    assert facts.memory == MemoryFacts(1000, 200, 600, 300, 50, 40)
    assert facts.disks == (
        DiskFacts("/", "overlay", 5000, 3000, 2500, 100, 90),
        DiskFacts("/a b", "ext4", 1, 1, 1, 1, 1),
    )
    assert facts.nets == (
        NetFacts("eth0", "52:54:00:12:34:56", 1500, True, 77, 88, ("10.0.2.15/24", "fe80::1/64")),
        NetFacts("lo", "", 65536, False, 0, 0),
    )


@pytest.mark.parametrize(
    "line",
    [
        "uptime",
        "uptime -1",
        "uptime 1.5",
        "uptime " + "9" * 5000,
        "uptime ²",
        "load 1 2",
        "load nan inf 1",
        "load 1e9 1 1",
        "cpu 1 2 3",
        "memory 1",
        "disk /",
        "disk / ext4 1 2 3 4 x",
        "net eth0",
        "net eth0 - 1500 up x 1",
    ],
)
def test_figures_that_are_none_are_refused(line: str) -> None:
    with pytest.raises(WireError):
        read_facts(line.encode())


def test_names_cannot_steer_a_terminal_and_numbers_fit_everywhere() -> None:
    facts = read_facts(b"hostname \x1b[31mred\\033[0m\nuptime 99999999999999999999\ndisk /\\302\\233 e\xff 1 1 1 1 1\n")
    assert printable(facts.hostname) == facts.hostname
    assert "\x1b" not in facts.hostname
    assert facts.uptime_ms == MOST
    assert printable(facts.disks[0].mount_point) == facts.disks[0].mount_point


def test_number_of_things_is_bounded() -> None:
    facts = read_facts(b"".join(b"disk /%d ext4 1 1 1 1 1\nnet e%d - 1 up 1 1\n" % (n, n) for n in range(500)))
    assert (len(facts.disks), len(facts.nets)) == (64, 64)


@given(lines_like(TEXT))
def test_whatever_a_guest_says_is_either_figures_or_nonsense(text: bytes) -> None:
    try:
        facts = read_facts(text)
    except WireError:
        return
    json.dumps(to_plain(facts), allow_nan=False)
