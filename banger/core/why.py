"""Why a VM is in its state, in one sentence, and what to type next. Pure."""

from __future__ import annotations

from banger.core.clock import rfc3339
from banger.core.models import ExitReason, Vm, VmState

_WORDS = {
    ExitReason.REQUESTED: "it was stopped on request",
    ExitReason.GUEST_POWEROFF: "the guest powered itself off",
    ExitReason.GUEST_REBOOT: "the guest rebooted",
    ExitReason.GUEST_PANIC: "the guest's kernel panicked",
    ExitReason.VMM_CRASH: "the VMM ended without a word from the guest",
    ExitReason.KILLED: "it was killed",
    ExitReason.OUT_OF_MEMORY: "the host's kernel killed the VMM because memory ran out",
    ExitReason.KVM_FAILURE: "KVM could not go on with the guest",
    ExitReason.HOST_REBOOT: "the host rebooted",
}


#: Causes of which the row's reason tells more.
_HAVE_DETAILS = frozenset({ExitReason.GUEST_PANIC, ExitReason.VMM_CRASH, ExitReason.KILLED, ExitReason.KVM_FAILURE})


#: What helps a VM that its user has not paused.
_PAUSED_NEXT = {
    "guard": "free some room: banger system df, banger image prune; it goes on by itself",
    "disk": "see what is wrong with the host's disk: banger system df; dmesg | grep -i 'i/o error'; then {resume}",
}


def sentence(vm: Vm) -> str:
    """The state and its cause."""
    if vm.state is VmState.PAUSED:
        return f"paused by {'you' if vm.paused_by == 'user' else 'banger'}{f': {vm.reason}' if vm.reason else ''}"
    if vm.state is VmState.STOPPED and vm.exit_reason:
        words = _WORDS[vm.exit_reason]
        if vm.restarts.due_at is not None:
            tries = f" ({vm.restarts.tries} times in a row)" if vm.restarts.tries > 1 else ""
            return f"restarting{tries}: {words}; it is started again at {rfc3339(vm.restarts.due_at)}"
        if vm.exit_reason is ExitReason.GUEST_REBOOT and vm.spec.on_reboot == "stop":
            words += ", which was to end the machine (--on-reboot stop)"
        return f"stopped: {words}" + (f" ({vm.reason})" if vm.reason and vm.exit_reason in _HAVE_DETAILS else "")
    return f"{vm.state.value}: {vm.reason}" if vm.reason else vm.state.value


def next_step(vm: Vm, *, leftovers: int) -> str:
    """A command that helps from here. ``leftovers``: how many things its ledger still holds."""
    name = vm.name
    if vm.restarts.due_at is not None and vm.state is VmState.STOPPED:
        return f"banger vm wait --until running {name}; to keep it down: banger vm stop {name}"
    match vm.state:
        case VmState.RUNNING:
            return f"banger vm exec {name} -- COMMAND, or banger vm logs -f {name}"
        case VmState.PAUSED:
            return _PAUSED_NEXT.get(vm.paused_by, "{resume}").format(resume=f"banger vm resume {name}")
        case VmState.SUSPENDED:
            return f"banger vm start {name}, or use it: it wakes by itself"
        case VmState.FAILED if leftovers:
            return f"banger system reconcile, then banger vm start {name}"
        case VmState.STOPPED if vm.exit_reason in (ExitReason.GUEST_PANIC, ExitReason.VMM_CRASH):
            return f"banger vm logs --tail 50 {name}; banger vm logs --source vmm {name}; banger doctor --boot"
        case VmState.STOPPED if vm.exit_reason is ExitReason.KVM_FAILURE:
            return f"banger vm start {name}, which tests KVM again; banger doctor --boot; or --accelerator tcg"
        case VmState.STOPPED if vm.exit_reason is ExitReason.OUT_OF_MEMORY:
            return "stop other VMs, or make this one with less --memory"
        case VmState.STOPPED | VmState.FAILED:
            return f"banger vm start {name}"
    return f"banger op list; banger vm show {name}"
