"""A guest's clock is judged fairly, however long a question to it takes and however coarsely it answers."""

from __future__ import annotations

import pytest

from banger.checkup.clocks import Offset, Sample, offset

T = 1_800_000_000.0


def test_quick_answer_tells_the_offset() -> None:
    found = offset([Sample(T, T + 0.02, "1800000000.310000")])
    assert (round(found.least_s, 3), round(found.most_s, 3)) == (0.29, 0.31)
    assert found.surely_within(1.0)
    assert str(found) == "0.30 s ahead (± 0.01 s)"


def test_guest_an_hour_behind_is_surely_beyond_a_second() -> None:
    found = offset([Sample(T, T + 5.0, f"{T - 3600:.6f}")])
    assert found.surely_beyond(1.0)
    assert "behind" in str(found)


def test_one_slow_answer_proves_neither() -> None:
    found = offset([Sample(T, T + 8.0, f"{T + 4:.6f}")])
    assert not found.surely_within(1.0)
    assert not found.surely_beyond(1.0)


def test_one_quick_answer_among_slow_ones_decides() -> None:
    slow = Sample(T, T + 8.0, f"{T + 4:.6f}")
    quick = Sample(T + 10, T + 10.1, f"{T + 10.05:.6f}")
    assert offset([slow, quick, slow]).surely_within(0.2)


def test_whole_seconds_are_narrowed_down_by_several_answers() -> None:
    behind_s = 0.25
    moments = [T + 0.3 * n for n in range(12)]
    samples = [Sample(moment, moment + 0.01, str(int(moment + 0.005 - behind_s))) for moment in moments]
    assert not offset(samples[:1]).surely_within(1.0)
    assert offset(samples).surely_within(1.0)


def test_clock_that_was_set_meanwhile_is_judged_by_its_last_answer() -> None:
    before, after = Sample(T, T + 0.1, f"{T - 50:.6f}"), Sample(T + 1, T + 1.1, f"{T + 1.05:.6f}")
    assert offset([before, after]).surely_within(1.0)


@pytest.mark.parametrize("answer", ["", "0", "-5", "date: not found", "1e9", "1800000000.", "17 00000000"])
def test_what_is_no_time_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        offset([Sample(T, T, answer)])


def test_interval_is_symmetrical() -> None:
    assert Offset(-0.9, 0.9).surely_within(0.9)
    assert not Offset(-1.1, 0.0).surely_within(1.0)
    assert Offset(-3.0, -1.1).surely_beyond(1.0)
