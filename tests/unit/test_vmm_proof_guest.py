from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.vmm.qemu import proof_guest


def said(*bounds: int) -> bytes:
    return struct.pack(f"<{len(bounds)}I", *bounds)


@given(
    rate_khz=st.integers(500_000, 8_000_000),
    early=st.lists(st.floats(0.98, 1.0), min_size=3, max_size=3),
    late=st.lists(st.floats(1.0, 1.02), min_size=3, max_size=3),
)
def test_rate_lies_within_the_tightest_bounds(rate_khz: int, early: list[float], late: list[float]) -> None:
    ticks = rate_khz * 1000 * proof_guest.INTERVAL_S
    output = said(*(int(ticks * factor) for pair in zip(early, late, strict=True) for factor in pair))
    found = proof_guest.ticks_per_second(output)
    assert found is not None
    rate, error = found
    tolerance = (min(late) - max(early)) / 2 + 1e-6
    assert error == pytest.approx(tolerance, rel=0.05, abs=1e-5)
    assert rate == pytest.approx(rate_khz * 1000, rel=tolerance)


@pytest.mark.parametrize(
    "output", [b"", said(1, 2), said(9, 8, 9, 8, 9, 8), said(1, 5, 9, 10, 1, 5), said(0, 5, 0, 5, 0, 5)]
)
def test_rate_of_nonsense_is_none(output: bytes) -> None:
    assert proof_guest.ticks_per_second(output) is None


def test_image_is_an_elf_file_that_names_its_entry_in_a_note() -> None:
    image = proof_guest.image()
    assert image[:4] == b"\x7fELF"
    (entry,) = struct.unpack_from("<Q", image, 24)
    assert b"Xen\0" + struct.pack("<I", entry) in image
    assert image[entry - 0x100000 :].startswith(bytes.fromhex("bc 00 00 18 00"))
