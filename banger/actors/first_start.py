"""The first start of a VM: its disk, and a boot, or a template that it goes on from.

That a template does not do is nobody's trouble: the VM boots then. Until the VM runs, its row says that it may have the
disk of a template, so that one which was given up halfway gets a disk of its own before it boots.
"""

from __future__ import annotations

from collections.abc import Callable

from banger.actors.services import Services
from banger.actors.template_use import HeldTemplate, template_for
from banger.actors.vm_files import VmFiles
from banger.actors.vm_keeper import VmKeeper
from banger.core import clock
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError
from banger.core.models import NO_RESTARTS, Image, Kernel, Vm, VmState
from banger.core.operation import Operation
from banger.core.origin import Origin

#: Starts a VM whose disk is there, on what it begins from.
Starter = Callable[[Vm, Operation, Origin | None], Vm]


class FirstStart:
    """In the thread of the VM's owner."""

    def __init__(self, services: Services, keeper: VmKeeper, start: Starter) -> None:
        self._services = services
        self._keeper = keeper
        self._start = start

    def run(self, vm: Vm, image: Image, kernel: Kernel, operation: Operation) -> Vm:
        """Make the disk, unless that was done, and start. Raises what ``start`` and storage drivers raise."""
        with template_for(self._services, vm, image, kernel, operation) as held:
            if held is None:
                return self._boot(vm, image, operation)
            try:
                return self._go_on(vm, image, held, operation)
            except (BangerError, OSError) as error:
                if not held.is_to_blame(error, operation):
                    raise
                now = self._keeper.load(vm.name)
                if now.state not in (VmState.CREATING, VmState.STOPPED):  # not all of it could be taken down
                    raise
                held.give_up(error)
                operation.note("it boots: the template that it could have gone on from does not do")
            return self._boot(now, image, operation)

    def make_disk(self, vm: Vm, image: Image, origin: Origin | None, operation: Operation) -> Vm:
        """Make the disk of a VM that never ran, in the place of one that may be there; it is stopped then."""
        files = VmFiles(self._services.layout, vm.id)
        storage = self._services.host.storages.named(vm.storage)
        with operation.step("create disk"):
            if vm.from_template or vm.state is not VmState.CREATING:
                storage.remove(files.directory)
                crashpoint("vm.first-start:disk-removed")
            if origin is None:
                rootfs = self._services.layout.image_rootfs(image)
                storage.create(files.directory, rootfs, vm.spec.disk_mib, operation)
            else:
                storage.fork(origin.disk, files.directory, operation)
        crashpoint("vm.create:disk-made")
        if vm.state is VmState.CREATING:
            vm = self._keeper.save(vm, state=VmState.STOPPED)
            self._services.host.ledger.begin(vm)
        crashpoint("vm.create:done")
        return vm

    def _go_on(self, vm: Vm, image: Image, held: HeldTemplate, operation: Operation) -> Vm:
        vm = self._keeper.save(vm, from_template=held.origin.template)
        crashpoint("vm.first-start:template-noted")
        vm = self.make_disk(vm, image, held.origin, operation)
        vm = self._start(vm, operation, held.origin)
        self._services.store.templates.note_use(held.origin.template, clock.now())
        return vm

    def _boot(self, vm: Vm, image: Image, operation: Operation) -> Vm:
        if vm.state is VmState.CREATING or vm.from_template:
            vm = self.make_disk(vm, image, None, operation)
        if vm.from_template:
            vm = self._keeper.save(vm, from_template="", restarts=NO_RESTARTS)
        return self._start(vm, operation, None)
