"""How a VM comes down, and what the ledger says it holds.

The order frees nothing that a live process may use, and a step that fails stops none of the others: its handle
stays in the ledger for the next reconcile.
"""

from __future__ import annotations

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.core.crashpoints import crashpoint
from banger.core.models import ProcessIdentity, Vm
from banger.host.cascade import CleanupStep, run_all
from banger.host.publish import discard


def recorded_identity(services: Services, vm_id: str) -> ProcessIdentity | None:
    """The VMM process in the ledger, or None if there is none.

    If the daemon died between intending and recording it, the process is looked for by its marker.
    """
    handles = services.store.handles.of(vm_id, "process")
    if not handles:
        return None
    if handles[0].detail:
        return ProcessIdentity(**handles[0].detail)
    return services.vmm.find(handles[0].key) or ProcessIdentity(0, 0, "", handles[0].key)


def console_of_this_boot(services: Services, vm: Vm) -> str:
    """The end of the console, but nothing that an earlier boot wrote."""
    offset = max((int(handle.detail["offset"]) for handle in services.store.handles.of(vm.id, "console")), default=0)
    return VmFiles(services.layout, vm.id).console_tail(offset)


def ports_in_use(services: Services, besides: str) -> dict[tuple[str, int], str]:
    """``(address, port)`` to the name of the VM that holds it, for every VM but ``besides``."""
    names = {vm.id: vm.name for vm in services.store.vms.all()}
    taken: dict[tuple[str, int], str] = {}
    for handle in services.store.handles.all():
        if handle.kind == "port" and handle.vm_id != besides:
            address, _, port = handle.key.rpartition(":")
            taken[address, int(port)] = names.get(handle.vm_id, handle.vm_id)
    return taken


def tear_down(services: Services, vm: Vm, identity: ProcessIdentity | None, *, files: bool = False) -> None:
    """Run the whole cascade: what a started VM holds, and with ``files`` its disk and directory too.

    Raises:
        ExceptionGroup: with one failure a step that failed, after all steps ran.
    """
    place = VmFiles(services.layout, vm.id)
    handles = services.store.handles

    def end_process() -> None:
        if identity is not None and identity.known:
            services.vmm.kill(identity)
        crashpoint("vm.down:process-gone")
        handles.strike(vm.id, "process")

    def remove_run_dir() -> None:
        discard(place.run_dir, services.layout)
        crashpoint("vm.down:run-dir-gone")
        handles.strike(vm.id, "run_dir")

    def remove_files() -> None:
        services.storage.remove(place.directory)
        crashpoint("vm.delete:disk-gone")
        discard(place.directory, services.layout)

    services.watcher.unwatch(vm.id)
    process = f"VMM process of {vm.name}"
    alive = (process,)  # nothing that a live process may use is freed
    steps = [
        CleanupStep("guest channel", lambda: services.guests.disconnect(vm.id)),
        CleanupStep(process, end_process),
        CleanupStep(f"sockets in {place.run_dir}", remove_run_dir, needs=alive),
        CleanupStep("console mark", lambda: handles.strike(vm.id, "console")),
        CleanupStep("ports", lambda: handles.strike(vm.id, "port"), needs=alive),
        CleanupStep(f"initrd {place.initrd}", lambda: place.initrd.unlink(missing_ok=True)),
    ]
    if files:
        steps.append(CleanupStep(f"files in {place.directory}", remove_files, needs=alive))
    run_all(steps)
