"""Using the disk of a VM from another owner: serialised with everything else that is done with that disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from banger.actors.messages import Command, UseDisk
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.operation import Operation

T = TypeVar("T")


def use_disk(
    ask: Callable[[Command, Operation], Any],
    vm: Vm,
    work: Callable[[Vm, Path, Operation], T],
    operation: Operation,
) -> T:
    """Have ``work`` done by the VM's owner while nothing else touches the disk, and return what it returns.

    Args:
        ask: asks another owner, as :meth:`banger.actors.base.OwnerActor.ask_owner`.
        vm: as it was found; it is looked at again in its turn.
        work: is given the VM as it is then, the directory that its disk is in, and its own operation.
        operation: of the asker; steps of the work become its own.

    Raises:
        BangerError: ``conflict`` if the VM is not stopped, now or in its turn; ``not_found`` if it is gone then.
        Exception: whatever ``work`` raises. It is no failure of the VM's owner.
    """
    check_lendable(vm)  # one that is being made may wait for the very owner that asks here

    def caught(lent: Vm, directory: Path, part: Operation) -> tuple[T | None, Exception | None]:
        try:
            return work(lent, directory, part), None
        except Exception as error:  # noqa: BLE001  # the boundary: it is raised again in the thread of who asked
            return None, error

    result, error = ask(UseDisk(vm.id, vm.name, caught), operation)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]  # answers have no types


def check_lendable(vm: Vm) -> None:
    """Raise ``conflict`` unless the VM is stopped: what uses its disk otherwise is its guest."""
    if vm.state is VmState.STOPPED:
        return
    raise BangerError(
        ErrorKind.CONFLICT, f'VM "{vm.name}" is {vm.state.value}, not stopped', subject=vm.name,
        cause="a disk in use cannot be read consistently", hint=f"banger vm stop {vm.name}",
    )  # fmt: skip
