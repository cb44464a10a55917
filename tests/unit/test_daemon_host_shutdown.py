"""What becomes of running VMs when the host goes down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from banger.actors.messages import SuspendVm
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.suspension import SHUTDOWN
from banger.core.waiter import Waiter
from banger.core.wire.vm_spec import VmSpec
from banger.daemon.host_shutdown import host_goes_down, suspend_all


@pytest.fixture
def systemctl(tmp_path: Path) -> Path:
    return tmp_path / "systemctl"


def says(systemctl: Path, words: str, status: int = 1) -> str:
    systemctl.write_text(f"#!/bin/sh\necho {words}\nexit {status}\n")
    systemctl.chmod(0o755)
    return str(systemctl)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("stopping", True), ("running", False), ("degraded", False), ("starting", False), ("", False)],
)
def test_only_a_manager_that_stops_takes_the_host_down(systemctl: Path, words: str, expected: bool) -> None:
    assert host_goes_down(says(systemctl, words)) is expected


def test_without_a_manager_the_host_is_taken_to_stay(tmp_path: Path) -> None:
    assert not host_goes_down(str(tmp_path / "nothing"))


def vm(name: str, state: VmState, **facts: object) -> Vm:
    return replace(Vm(name, name, VmSpec("alpine"), state, clock.now()), **facts)  # type: ignore[arg-type]


def test_all_that_run_are_suspended_and_one_that_cannot_be_hinders_none() -> None:
    asked: list[SuspendVm] = []

    def submit(command: SuspendVm, _deadline: object) -> Waiter:
        asked.append(command)
        waiter = Waiter()
        waiter.refuse(BangerError(ErrorKind.UNAVAILABLE, "cannot be saved"))
        return waiter

    running = [vm(f"run-{number}", VmState.RUNNING) for number in range(9)]
    others = [
        vm("stopped", VmState.STOPPED),
        vm("asleep", VmState.SUSPENDED),
        vm("session", VmState.RUNNING, attended=True),
        vm("no-room", VmState.PAUSED, paused_by="guard"),
    ]
    paused = vm("paused", VmState.PAUSED, paused_by="user")
    suspend_all([*running, *others, paused], submit, lambda _: None)  # type: ignore[arg-type]
    assert [one.vm_name for one in asked] == [*(one.name for one in running), "paused"]
    assert {one.by for one in asked} == {SHUTDOWN}


def test_manager_is_asked_for_more_time_while_machines_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    waiter, told = Waiter(), []
    monkeypatch.setattr("banger.daemon.host_shutdown._ASK_S", 0.01)

    def tell(words: str) -> None:
        told.append(words)
        waiter.refuse(BangerError(ErrorKind.UNAVAILABLE, "enough"))

    suspend_all([vm("web", VmState.RUNNING)], lambda *_: waiter, tell)
    assert told[0] == "EXTEND_TIMEOUT_USEC=30000000"
