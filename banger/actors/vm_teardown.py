"""Tearing down a VM: everything that the ledger says it holds.

The order frees nothing that a live process may use, and a step that fails stops none of the others: its handle
stays in the ledger for the next reconcile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from banger.actors import suspended_files
from banger.actors.kept_disks import put_back_step
from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.core import codec
from banger.core.crashpoints import crashpoint
from banger.core.models import ProcessIdentity, Vm
from banger.core.plan import CleanupStep
from banger.core.ports import Handle, VmLedger
from banger.host import uids
from banger.host.cascade import run_all
from banger.host.publish import discard

#: The kind of a process that helps to save a VM's machine, see :meth:`banger.core.ports.VmmDriver.save`.
SAVER = "saver"
#: Kinds of what a launch makes besides the process, see :meth:`banger.core.ports.VmmLauncher.holds`.
LAUNCHER_KINDS = ("unit", "cgroup")


def recorded_identity(services: Services, vm_id: str) -> ProcessIdentity | None:
    """The VMM process in the ledger, or None if there is none.

    If the daemon died between intending and recording it, the process is looked for by its marker. So it is when the
    recorded one is gone although the host has not rebooted: the record may be that of an earlier start.
    """
    return find_process(services, services.host.ledger.of(vm_id).of("process"))[0]


def find_process(services: Services, handles: Sequence[Handle]) -> tuple[ProcessIdentity | None, bool]:
    """As :func:`recorded_identity`, from a VM's handles of kind ``process``; and whether it lives."""
    if not handles:
        return None, False
    marker = handles[0].key
    identity = (
        codec.from_plain(ProcessIdentity, handles[0].detail, tolerant=True)
        if handles[0].detail
        else ProcessIdentity(0, 0, "", marker)
    )
    if identity.known:
        if services.vms.vmms.processes.is_alive(identity):
            return identity, True
        if not services.vms.vmms.processes.of_this_boot(identity):
            return identity, False
    found = services.vms.vmms.processes.find(marker)
    return found or identity, found is not None


def end_saver(services: Services, ledger: VmLedger) -> None:
    """End the helper of a save that nobody may have ended; already gone is success. It stays in the ledger."""
    for handle in ledger.of(SAVER):
        if (found := services.vms.vmms.processes.find(handle.key)) is not None:
            services.vms.vmms.processes.kill(found)


def console_of_this_boot(services: Services, vm: Vm) -> str:
    """The end of the console, but nothing that an earlier boot wrote."""
    marks = services.host.ledger.of(vm.id).of("console")
    offset = max((int(handle.detail["offset"]) for handle in marks), default=0)
    return VmFiles(services.layout, vm.id).console_tail(offset)


def tear_down(services: Services, vm: Vm, identity: ProcessIdentity | None, *, files: bool = False) -> None:
    """Run the whole cascade: what a started VM holds, and with ``files`` its disk and directory too.

    Raises:
        ExceptionGroup: with one failure a step that failed, after all steps ran.
    """
    place = VmFiles(services.layout, vm.id)
    ledger = services.host.ledger.of(vm.id)

    def end_process() -> None:
        if identity is not None and identity.known:
            services.vms.vmms.processes.kill(identity)
        crashpoint("vm.down:process-gone")
        ledger.strike("process")

    def end_save() -> None:
        end_saver(services, ledger)
        ledger.strike(SAVER)

    def remove_run_dir() -> None:
        discard(place.run_dir, services.layout)
        crashpoint("vm.down:run-dir-gone")
        ledger.strike("run_dir")

    services.vms.watcher.unwatch(vm.id)
    process = f"VMM process of {vm.name}"
    alive = (process,)  # nothing that a live process may use is freed
    made = [replace(step, needs=(*alive, *step.needs)) for step in _capability_steps(services, vm)]
    disk = services.host.storages.named(vm.storage).detach(vm.id, place.directory, ledger)
    disk = [replace(step, needs=(*alive, *step.needs)) for step in disk]
    steps = [
        CleanupStep("guest channel", lambda: services.vms.guests.disconnect(vm.id)),
        CleanupStep(f"helper that saves {vm.name}", end_save),
        CleanupStep(process, end_process),
        *_launcher_steps(services, vm, needs=alive),
        CleanupStep(f"user of the VMM of {vm.name}", lambda: ledger.strike(uids.KIND), needs=alive),
        CleanupStep(f"sockets in {place.run_dir}", remove_run_dir, needs=alive),
        *made,
        *disk,
        CleanupStep("unfinished suspension", lambda: suspended_files.clear_unfinished(services.layout, vm.id)),
        CleanupStep("console mark", lambda: ledger.strike("console")),
        CleanupStep(f"initrd {place.initrd}", lambda: place.initrd.unlink(missing_ok=True)),
    ]
    steps += put_back_step(vm, place.directory, ledger, needs=(process, *(step.subject for step in disk)))
    if files:
        steps += _file_steps(services, vm, place, needs=(process, *(step.subject for step in disk)))
    run_all(steps)


def _launcher_steps(services: Services, vm: Vm, needs: tuple[str, ...]) -> list[CleanupStep]:
    """What takes down what the process was started in."""
    ledger = services.host.ledger.of(vm.id)

    def release(handle: Handle) -> None:
        services.vms.vmms.launcher.release(handle.kind, handle.key)
        crashpoint("vm.down:launcher-released")
        ledger.strike(handle.kind, handle.key)

    held = (handle for kind in LAUNCHER_KINDS for handle in ledger.of(kind))
    return [CleanupStep(f"{one.kind} {one.key}", partial(release, one), needs=needs) for one in held]


def _capability_steps(services: Services, vm: Vm) -> list[CleanupStep]:
    """What takes down what the capabilities made, in the reverse order of a start."""
    ledger = services.host.ledger.of(vm.id)
    return [step for one in reversed(services.host.capabilities) for step in one.cleanup(vm, ledger)]


def _file_steps(services: Services, vm: Vm, place: VmFiles, needs: tuple[str, ...]) -> list[CleanupStep]:
    """The disk and the directory with the ledger's file; the rows stay as long as something is left."""

    def remove_disk() -> None:
        services.host.storages.named(vm.storage).remove(place.directory)
        crashpoint("vm.delete:disk-gone")

    disk = f"disk of {vm.name}"
    kept = [
        CleanupStep(f"{one.name} of {vm.name}, for good", partial(one.erase, vm), needs)
        for one in services.host.capabilities
    ]
    return [
        *kept,
        CleanupStep(disk, remove_disk, needs=needs),
        CleanupStep(f"files in {place.directory}", lambda: discard(place.directory, services.layout), needs=(disk,)),
    ]
