"""Which template a VM's start can go on from, held while it does; and a note that one was missed, if there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from loguru import logger

from banger.actors.leases import leased
from banger.actors.messages import DeleteTemplate
from banger.actors.services import Services
from banger.actors.vm_machines import driver_for
from banger.core import clock, codec
from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.identity import RenewalEvent
from banger.core.models import Image, Kernel, Vm
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.templates import Wish, bare_spec, key_of, obstacle
from banger.core.wire.vm_spec import VmSpec
from banger.store.leases import directory_key

#: What a start from a template may fail with that a boot need not fail with, too.
_DOUBTFUL = (
    ErrorKind.UNAVAILABLE,
    ErrorKind.INVALID,
    ErrorKind.TIMEOUT,
    ErrorKind.NOT_FOUND,
    ErrorKind.DENIED,
    ErrorKind.UNKNOWN_OUTCOME,
    ErrorKind.INTERNAL,
)


class HeldTemplate:
    """A template that a VM is being started from; nobody deletes it meanwhile."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.failure = ""

    def is_to_blame(self, error: Exception, operation: Operation) -> bool:
        """A boot may do where this has failed, and somebody still wants it."""
        wanted = not operation.haste.cancelled and not operation.deadline.expired
        return wanted and not (isinstance(error, BangerError) and error.kind not in _DOUBTFUL)

    def give_up(self, error: Exception) -> None:
        """Nobody else is to be started from it."""
        self.failure = str(error)


@contextmanager
def template_for(
    services: Services, vm: Vm, image: Image, kernel: Kernel, operation: Operation
) -> Iterator[HeldTemplate | None]:
    """The template for the first start of a VM that has its sizes; None if it has to boot.

    One that is given up in the block is deleted after it.
    """
    wish = _wish_or_none(services, vm, image, kernel, operation)
    found = services.store.templates.by_key(wish.id) if wish else None
    if wish is None:
        yield None
    elif found is None:
        _note(services, wish)
        yield None
    else:
        origin = Origin(found.snapshot, services.layout.template_dir(found.id), RenewalEvent.TEMPLATE, found.id)
        held = HeldTemplate(origin)
        leases = services.store.leases
        with leased(leases, operation):
            leases.take(operation.id, [directory_key(found.id)])
            is_there = services.store.templates.get(found.id) is not None  # what is there now stays
            yield held if is_there else None
        if held.failure:
            logger.warning("{}: booted, as its template {} does not do: {}", vm.name, found.id, held.failure)
            _give_up(services, wish, found.id, held.failure)


def wish_for(services: Services, vm: Vm, image: Image, kernel: Kernel, operation: Operation) -> Wish | None:
    """What a template for this VM would be; None if it is to boot by itself.

    Raises:
        BangerError: its start would fail with the same.
    """
    if services.config.text("run.templates") == "off" or not (image.name and kernel.name):
        return None
    choice = driver_for(services, vm, kernel.digest)
    if obstacle(vm.spec, choice.driver.name):
        return None
    engine = choice.driver.engines.choose(vm.spec.accelerator, kernel.digest)
    if engine.pace is not None:  # it has to be seen first whether this kernel boots on it
        return None
    toolbox = services.vms.boot.toolbox(services.layout.kernel_dir(kernel.id), kernel.id, operation)
    present = [one for one in services.host.capabilities if one.applies(vm)]
    key = key_of(
        {
            "image": image.id,
            "config": codec.to_plain(image.config),
            "kernel": f"{kernel.id} {kernel.digest} {kernel.cmdline}",
            "toolbox": toolbox.name,
            "access": services.vms.authorized_key,
            "vmm": [choice.driver.name, choice.driver.version(), engine.accelerator],
            "options": dict(choice.driver.options(vm.spec)),
            "sizes": [vm.spec.cpus, vm.spec.memory_mib, vm.spec.disk_mib],
            "init": vm.spec.init.value,
            "storage": vm.storage,
            "network": vm.spec.network,
            "devices": sorted(kind.__name__ for one in present for kind in one.devices(vm)),
        }
    )
    spec = replace(bare_spec(vm.spec), image=image.name, kernel=kernel.name, storage=vm.storage)
    return Wish(
        key,
        image.id,
        kernel.id,
        _cut_off(services, vm, spec),
        clock.now(),
        vm.owner_uid,
    )


def _cut_off(services: Services, vm: Vm, spec: VmSpec) -> VmSpec:
    """With nothing that its guest reaches while it boots, if it has its card all the same."""
    alone = replace(vm, spec=replace(spec, egress="none"))
    cards = [
        [kind for one in services.host.capabilities if one.applies(of) for kind in one.devices(of)]
        for of in (vm, alone)
    ]
    return alone.spec if cards[0] == cards[1] else spec


def _wish_or_none(services: Services, vm: Vm, image: Image, kernel: Kernel, operation: Operation) -> Wish | None:
    try:
        return wish_for(services, vm, image, kernel, operation)
    except (BangerError, OSError) as error:
        logger.debug("{}: whether there is a template for it cannot be told: {}", vm.name, error)
        return None


def _note(services: Services, wish: Wish) -> None:
    """That is all that comes of a first start, so that nothing fails because of it."""
    try:
        before = services.store.wishes.get(wish.id)
        services.store.wishes.put(before.again(wish.at) if before else wish)
    except BangerError as error:
        logger.debug("that a template was wished for is not noted: {}", error)


def _give_up(services: Services, wish: Wish, template_id: str, why: str) -> None:
    try:
        services.store.wishes.put(replace(wish, failed_at=clock.now()))
    except BangerError as error:
        logger.debug("that a template failed is not noted: {}", error)
    services.submit(DeleteTemplate(wish.id, template_id, why), Deadline.never())
