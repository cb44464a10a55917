"""What QEMU's monitor says of a machine, as a condition."""

from __future__ import annotations

import pytest

from banger.core.ports import Condition, Health
from banger.vmm.qemu.health import condition

KVM = "KVM internal error. Suberror: 1\nRAX=0000000000000000\n"


@pytest.mark.parametrize("status", ["running", "suspended", "prelaunch", "a state of a later QEMU"])
def test_machine_of_which_nothing_bad_is_known_runs(status: str) -> None:
    assert condition(status, [], "") == Condition()


def test_machine_that_was_paused_is_not_stalled() -> None:
    found = condition("paused", [], "")
    assert (found.health, found.is_stalled) == (Health.PAUSED, False)


@pytest.mark.parametrize(
    ("states", "health"),
    [
        ([{"io-status": "ok"}, {"io-status": "nospace"}], Health.NO_ROOM),
        ([{"io-status": "failed"}, {"io-status": "ok"}], Health.DISK_FAILED),
        ([{"io-status": "failed"}, {"io-status": "nospace"}], Health.DISK_FAILED),
        ([{"device": "no io-status at all"}], Health.DISK_FAILED),
        ([], Health.DISK_FAILED),
    ],
)
def test_machine_that_stopped_for_a_write_waits_for_room_only_if_every_disk_says_so(
    states: list[dict[str, str]], health: Health
) -> None:
    found = condition("io-error", states, "")
    assert (found.health, found.is_stalled) == (health, True)
    assert found.words


@pytest.mark.parametrize(("log", "words"), [(KVM, "KVM internal error. Suberror: 1"), ("", "internal error")])
def test_machine_that_its_vmm_gave_up_is_broken_in_its_words(log: str, words: str) -> None:
    found = condition("internal-error", [], log)
    assert (found.health, found.is_stalled) == (Health.BROKEN, False)
    assert words in found.words
