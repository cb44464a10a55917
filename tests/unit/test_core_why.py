"""Why a VM is as it is, in words, and what to type next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.core import clock
from banger.core.models import ExitReason, Restarts, Vm, VmState
from banger.core.why import next_step, sentence
from banger.core.wire.vm_spec import VmSpec

VM = Vm("feedfacecafe", "web", VmSpec("debian"), VmState.STOPPED, clock.now())


@pytest.mark.parametrize("reason", [reason for reason in ExitReason if reason])
def test_every_cause_of_an_exit_has_words_and_a_next_step(reason: ExitReason) -> None:
    vm = replace(VM, exit_reason=reason)
    assert sentence(vm).startswith("stopped: ")
    assert next_step(vm, leftovers=0)


@pytest.mark.parametrize("state", list(VmState))
def test_every_state_has_words_and_a_next_step(state: VmState) -> None:
    vm = replace(VM, state=state, paused_by="user")
    assert sentence(vm)
    assert next_step(vm, leftovers=0)


def test_crash_is_told_with_what_is_known_of_it() -> None:
    vm = replace(VM, exit_reason=ExitReason.VMM_CRASH, reason="the VMM crashed with SIGSEGV")
    assert "SIGSEGV" in sentence(vm)
    assert "banger vm logs --source vmm web" in next_step(vm, leftovers=0)


def test_vm_that_was_not_cleaned_up_is_reconciled_first() -> None:
    failed = replace(VM, state=VmState.FAILED)
    assert next_step(failed, leftovers=2).startswith("banger system reconcile")
    assert next_step(failed, leftovers=0) == "banger vm start web"


def test_vm_that_the_guard_paused_wants_room_not_a_resume() -> None:
    vm = replace(VM, state=VmState.PAUSED, paused_by="guard", reason="no room")
    assert sentence(vm) == "paused by banger: no room"
    assert "banger system df" in next_step(vm, leftovers=0)


def test_vm_that_is_about_to_come_back_says_when_and_how_to_keep_it_down() -> None:
    due = clock.parse_rfc3339("2026-05-01T10:00:00Z")
    vm = replace(VM, state=VmState.STOPPED, exit_reason=ExitReason.GUEST_REBOOT, restarts=Restarts(0, 7, due))
    assert "restarting (7 times in a row): the guest rebooted" in sentence(vm)
    assert "2026-05-01T10:00:00" in sentence(vm)
    assert "banger vm stop web" in next_step(vm, leftovers=0)


def test_reboot_that_ended_the_machine_is_told_as_what_was_wished() -> None:
    vm = replace(VM, state=VmState.STOPPED, exit_reason=ExitReason.GUEST_REBOOT, spec=VmSpec("x", on_reboot="stop"))
    assert "--on-reboot stop" in sentence(vm)
