"""What the owners of VMs do with a snapshot that a VM begins from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from banger.actors.leases import leased
from banger.actors.services import Services
from banger.actors.vm_machines import driver_for
from banger.actors.vmm_choice import VmmChoice
from banger.core import lookup
from banger.core.errors import BangerError, ErrorKind
from banger.core.identity import RenewalEvent
from banger.core.models import Image, Kernel, Vm
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.store.leases import directory_key


@contextmanager
def kept(services: Services, origin: Origin | None, operation: Operation) -> Iterator[None]:
    """Nobody deletes the snapshot while the block is being executed.

    Raises:
        BangerError: ``not_found`` if it is gone already.
    """
    if origin is None or origin.event is RenewalEvent.FORK:  # whoever took it for this keeps it
        yield
        return
    store, snapshot = services.store, origin.snapshot
    with leased(store.leases, operation):
        store.leases.take(operation.id, [directory_key(snapshot.id)])
        if store.snapshots.get(snapshot.id) is None:  # looked at once it is held: what is there now stays
            raise lookup.not_found(snapshot.name, "snapshot", [])
        yield


def driver_for_origin(services: Services, vm: Vm, origin: Origin | None, kernel_digest: str = "") -> VmmChoice:
    """The driver that a start takes: as :func:`driver_for`, but a saved machine goes on where it was saved."""
    if origin is None or origin.machine is None:
        return driver_for(services, vm, kernel_digest)
    vmm = origin.machine.vmm
    choice = driver_for(services, replace(vm, spec=replace(vm.spec, vmm=vmm)), kernel_digest)
    return VmmChoice(choice.driver, "its machine was saved on it")


def artifacts_of(services: Services, origin: Origin) -> tuple[Image, Kernel]:
    """The image and the kernel that the saved VM has. Raises ``conflict`` if one was deleted meanwhile."""
    snapshot = origin.snapshot
    image = services.store.images.get(snapshot.image_id)
    kernel = services.store.kernels.get(snapshot.kernel_id)
    if image is None or kernel is None:
        raise BangerError(
            ErrorKind.CONFLICT, f'the image or the kernel of VM "{snapshot.vm_name}" was deleted meanwhile',
            subject=snapshot.vm_name, hint="try again",
        )  # fmt: skip
    return image, kernel
