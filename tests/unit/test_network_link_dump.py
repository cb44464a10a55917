"""The kernel's list of interfaces; what is cut or interrupted is not taken for it."""

from __future__ import annotations

import struct

import pytest

from banger.network.link_dump import Found, InterruptedDumpError, dump_links, parse


def attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def message(kind: int, body: bytes, flags: int = 2) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body + bytes(-len(body) % 4)


LINK = (
    struct.pack("=BxHiII", 0, 1, 7, 0x1003, 0)
    + attribute(3, b"bt0\0")
    + attribute(20, b"banger x\0")
    + attribute(4, struct.pack("=I", 1400))
    + attribute(10, struct.pack("=I", 3))
    + attribute(99, b"odd")
)


def test_loopback_is_among_the_interfaces() -> None:
    (found,) = [one for one in dump_links() if one.name == "lo"]
    assert (found.index, found.master, found.alias) == (1, 0, "")


def test_attributes_are_read_and_unknown_ones_passed_over() -> None:
    found, is_last = parse(message(16, LINK) + message(16, LINK) + message(3, bytes(4)))
    assert found == [Found(7, "bt0", "banger x", 1400, 3, 0x1003)] * 2
    assert is_last
    assert parse(message(16, LINK)) == (found[:1], False)


def test_answer_that_is_not_of_one_moment_is_not_taken() -> None:
    with pytest.raises(InterruptedDumpError):
        parse(message(16, LINK, flags=0x12))


def test_refusal_of_the_kernel_is_an_error_with_its_number() -> None:
    with pytest.raises(OSError, match="does not list") as failed:
        parse(message(2, struct.pack("=i", -1) + bytes(16)))
    assert failed.value.errno == 1


@pytest.mark.parametrize("cut", range(1, len(LINK), 7))
def test_answer_that_is_cut_is_an_error(cut: int) -> None:
    with pytest.raises(OSError, match="cut"):
        parse(message(16, LINK)[:-cut])
