"""VMs as the tests of their owners make and look at them."""

from __future__ import annotations

from banger.actors.messages import CreateVm
from banger.core.models import ProcessIdentity, Vm
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from tests.support.fakes import World


def create(world: World, name: str = "web", *, start: bool = False, **spec: object) -> Vm:
    """Make a VM of the image ``alpine``, which is pulled if it is not there."""
    return world.do(CreateVm(new_id(), name, VmSpec("alpine", **spec), start=start))  # type: ignore[no-any-return, arg-type]


def process_of(world: World, vm: Vm) -> ProcessIdentity:
    """The VMM process that the ledger names."""
    (handle,) = world.ledger.of(vm.id).of("process")
    return ProcessIdentity(**handle.detail)
