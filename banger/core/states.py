"""The legal state transitions of a VM. Pure; the VM's owner checks them before it writes a state."""

from __future__ import annotations

from collections.abc import Mapping

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState

_S = VmState

MOVES: Mapping[VmState, frozenset[VmState]] = {
    _S.CREATING: frozenset({_S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.STOPPED: frozenset({_S.STARTING, _S.DELETING, _S.FAILED}),
    _S.STARTING: frozenset({_S.RUNNING, _S.STOPPED, _S.SUSPENDED, _S.STOPPING, _S.FAILED, _S.DELETING}),
    _S.RUNNING: frozenset({_S.STOPPING, _S.PAUSED, _S.SUSPENDING, _S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.STOPPING, _S.SUSPENDING, _S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.SUSPENDING: frozenset({_S.SUSPENDED, _S.RUNNING, _S.PAUSED, _S.STOPPING, _S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.SUSPENDED: frozenset({_S.STARTING, _S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.STOPPING: frozenset({_S.STOPPED, _S.FAILED, _S.DELETING}),
    _S.FAILED: frozenset({_S.STARTING, _S.STOPPED, _S.SUSPENDED, _S.DELETING}),
    _S.DELETING: frozenset({_S.FAILED}),
}

#: States in which a VMM process may be alive.
LIVE = frozenset({_S.STARTING, _S.RUNNING, _S.PAUSED, _S.SUSPENDING, _S.STOPPING})

#: States of a VM that has nothing to end: its VMM was ended on request, and all that it held was taken down.
DOWN = frozenset({_S.STOPPED, _S.SUSPENDED})


def check_move(vm: Vm, target: VmState) -> None:
    """Raise ``conflict`` unless ``vm`` may move to ``target``. Staying where it is is always legal."""
    if target is vm.state or target in MOVES[vm.state]:
        return
    raise BangerError(
        ErrorKind.CONFLICT,
        f'VM "{vm.name}" is {vm.state.value}: it cannot become {target.value}',
        subject=vm.name,
        hint=f"banger vm show {vm.name}",
    )


def check_running(vm: Vm) -> None:
    """Raise ``conflict`` with the command that helps unless the guest of ``vm`` can be reached."""
    if vm.state is _S.RUNNING:
        return
    if vm.restarts.due_at is not None and vm.state is not _S.PAUSED:
        raise BangerError(
            ErrorKind.CONFLICT,
            f'VM "{vm.name}" is being started again, not running',
            subject=vm.name,
            cause=vm.reason,
            hint=f"banger vm wait --until running {vm.name}",
        )
    verb = {_S.STOPPED: "start", _S.SUSPENDED: "start", _S.FAILED: "start", _S.PAUSED: "resume"}.get(vm.state, "show")
    raise BangerError(
        ErrorKind.CONFLICT,
        f'VM "{vm.name}" is {vm.state.value}, not running',
        subject=vm.name,
        cause=vm.reason,
        hint=f"banger vm {verb} {vm.name}",
    )
