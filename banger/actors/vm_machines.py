"""The VMM driver of a VM, and its machine as that driver reports it."""

from __future__ import annotations

from collections.abc import Collection

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity, Vm
from banger.core.ports import DEVICE_WORDS, Condition, Drive, Machine, Mount, TapNic, UserNic, VmmDriver


def driver_for(services: Services, vm: Vm) -> VmmDriver:
    """The driver that a start of this VM takes.

    Raises:
        BangerError: ``usage`` for what it does not know, or cannot give a machine that this VM is to have;
            ``unavailable`` if there is no such network here.
    """
    driver = services.vms.vmms.drivers.default
    driver.check(vm.spec)
    wanted = {Drive, *(kind for one in services.host.capabilities if one.applies(vm) for kind in one.devices(vm))}
    if not wanted & {UserNic, TapNic}:
        raise _no_network(vm)
    if lacking := [kind for kind in DEVICE_WORDS if kind in wanted - set(driver.devices)]:
        able = [one.name for one in services.vms.vmms.drivers if wanted <= set(one.devices)]
        raise _cannot(
            vm, f'the VMM driver "{driver.name}" cannot give it {DEVICE_WORDS[lacking[0]]}',
            f"set vmm.driver to {' or '.join(able)}" if able else "banger doctor",
        )  # fmt: skip
    _check_mounts(
        vm, [mount for one in services.host.capabilities if one.applies(vm) for mount in one.mounts(vm)], services
    )
    return driver


def driver_of(services: Services, vm: Vm) -> VmmDriver:
    """The driver that started it, or would have. Raises ``usage`` for one that this banger does not have."""
    return services.vms.vmms.drivers.chosen(vm.vmm)


def machine_of(services: Services, vm: Vm, identity: ProcessIdentity) -> Machine:
    """Its machine, which runs in that process."""
    files = VmFiles(services.layout, vm.id)
    return Machine(vm.id, identity, files.run_dir, files.vmm_log)


def condition_of(services: Services, vm: Vm, identity: ProcessIdentity | None) -> Condition:
    """How its machine is; nothing bad is known of one that there is not.

    Raises:
        BangerError: as :func:`driver_of`.
    """
    if identity is None:
        return Condition()
    return driver_of(services, vm).condition(machine_of(services, vm, identity))


def _no_network(vm: Vm) -> BangerError:
    network = vm.spec.network
    return BangerError(
        ErrorKind.UNAVAILABLE,
        f'this daemon has no network "{network}" for VM "{vm.name}"',
        subject=network,
        cause="taps take root, or the capability CAP_NET_ADMIN, and /dev/net/tun" if network == "tap" else "",
        hint="banger doctor; or make the VM with --network user",
    )


def _check_mounts(vm: Vm, wanted: Collection[Mount], services: Services) -> None:
    lacking = [mount for mount in wanted if mount not in services.vms.boot.mounts]
    if lacking:
        raise _cannot(vm, f'its guest cannot mount the drive "{lacking[0].serial}" on "{lacking[0].path}"', "")


def _cannot(vm: Vm, cause: str, hint: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f'VM "{vm.name}" cannot run here', subject=vm.name, cause=cause, hint=hint)
