"""Who starts VMMs: as configured, or as it is possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.launch import Launching, Limits, Outcome, launching
from banger.launch.cgroups import NoDelegationError
from banger.launch.systemd import SystemdLauncher

VM = "aaaaaaaaaaaa"


def make(
    monkeypatch: pytest.MonkeyPatch, wish: str, *, supervised: bool, obstacle: str = "", limits: str = "on"
) -> Launching:
    monkeypatch.setattr(launching, "is_supervised", lambda env, pid: supervised)
    monkeypatch.setattr(SystemdLauncher, "obstacle", lambda self: obstacle)

    def nothing() -> Path:
        raise NoDelegationError("nothing was delegated")

    monkeypatch.setattr(launching, "delegated_part", nothing)
    settings = {"BANGER_VMM_LAUNCHER": wish, "BANGER_VMM_LIMITS": limits}
    return Launching(Config.load(Path("/nonexistent"), settings), "0123456789ab", {})


@pytest.mark.parametrize(
    ("wish", "supervised", "obstacle", "name", "reason"),
    [
        ("auto", True, "", "systemd", "the daemon is one itself"),
        ("auto", True, "no bus", "session", "no bus"),
        ("auto", False, "", "session", "not a service"),
        ("session", True, "", "session", "is set"),
        ("systemd", False, "", "systemd", "is set"),
    ],
)
def test_launcher_is_chosen_by_wish_and_by_what_works(
    monkeypatch: pytest.MonkeyPatch, wish: str, supervised: bool, obstacle: str, name: str, reason: str
) -> None:
    facts = make(monkeypatch, wish, supervised=supervised, obstacle=obstacle).facts()
    assert facts.name == name
    assert reason in facts.reason


def test_systemd_that_was_wished_for_and_does_not_work_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BangerError) as caught:
        make(monkeypatch, "systemd", supervised=True, obstacle="no bus").holds(VM)
    assert (caught.value.kind, caught.value.cause) == (ErrorKind.UNAVAILABLE, "no bus")
    assert "vmm.launcher" in caught.value.hint


def test_unit_is_to_be_intended_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(monkeypatch, "systemd", supervised=True).holds(VM) == [("unit", f"banger-0123456789ab-{VM}.service")]
    assert make(monkeypatch, "session", supervised=True).holds(VM) == []


def test_session_without_a_delegated_cgroup_is_not_limited_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = make(monkeypatch, "session", supervised=False).facts()
    assert (facts.limited, facts.unlimited_because) == (False, "nothing was delegated")
    assert make(monkeypatch, "systemd", supervised=True).facts().limited


def test_limits_leave_room_for_the_vmm_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = make(monkeypatch, "systemd", supervised=True).limits(2, 512, 128)
    assert limits.cpu_percent > 200
    assert limits.memory_bytes == 640 << 20
    off = make(monkeypatch, "systemd", supervised=True, limits="none")
    assert off.limits(2, 512, 128) == Limits()
    assert not off.facts().limited


def test_manager_that_cannot_be_asked_keeps_no_exit_from_being_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_bus(self: SystemdLauncher, vm_id: str) -> Outcome:
        raise BangerError(ErrorKind.UNAVAILABLE, '"systemctl" failed', cause="Failed to connect to bus")

    monkeypatch.setattr(SystemdLauncher, "outcome", no_bus)
    assert make(monkeypatch, "session", supervised=False).outcome(VM) == Outcome()
