"""The VMM driver of a VM, and its machine as that driver reports it."""

from __future__ import annotations

from collections.abc import Collection

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.actors.vmm_choice import VmmChoice, choose_vmm, lacking
from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity, Vm
from banger.core.ports import (
    Capability,
    Condition,
    DeviceKind,
    Drive,
    Health,
    Machine,
    Mount,
    TapNic,
    UserNic,
    VmmDriver,
)

#: How often, in seconds, a machine that does not end by itself is looked at while its guest is to power off.
_LOOK_S = 1.0


def driver_for(services: Services, vm: Vm, kernel_digest: str = "") -> VmmChoice:
    """The driver that a start of this VM takes; the kernel may not be known yet.

    Raises:
        BangerError: ``usage`` for what it does not know, or cannot give a machine that this VM is to have;
            ``unavailable`` if there is no such network here.
    """
    present, wanted = _present(services, vm), _wanted(services, vm)
    # Without a network "user" on this host, its VMs are cut off, and are told so when they start.
    if not wanted & {UserNic, TapNic} and vm.spec.network not in ("none", "user"):
        raise _no_network(vm)
    choice = likely_driver(services, vm, kernel_digest)
    if words := lacking(choice.driver, wanted):
        able = [one.name for one in services.vms.vmms.drivers if wanted <= set(one.devices)]
        hint = f"--vmm {' or '.join(able)}, or set vmm.driver" if able else "banger doctor"
        if vm.spec.network == "user" and UserNic in wanted:
            hint = f"banger doctor says what the network user lacks here; or {hint}"
        raise _cannot(vm, f'the VMM driver "{choice.driver.name}" cannot give it {words}', hint)
    _check_mounts(vm, [mount for one in present for mount in one.mounts(vm)], services)
    return choice


def likely_driver(services: Services, vm: Vm, kernel_digest: str = "") -> VmmChoice:
    """The same for a VM that is not to be started now: what it lacks, it may have by then. Raises ``usage``."""
    choice = choose_vmm(services.vms.vmms, vm.spec, _wanted(services, vm), kernel_digest)
    choice.driver.options(vm.spec)
    return choice


def driver_of(services: Services, vm: Vm) -> VmmDriver:
    """The driver that started it, or would have. Raises ``usage`` for one that this banger does not have."""
    return services.vms.vmms.drivers.chosen(vm.vmm)


def machine_of(services: Services, vm: Vm, identity: ProcessIdentity) -> Machine:
    """Its machine, which runs in that process."""
    files = VmFiles(services.layout, vm.id)
    return Machine(vm.id, identity, files.run_dir, files.console_log, files.vmm_log)


def condition_of(services: Services, vm: Vm, identity: ProcessIdentity | None) -> Condition:
    """How its machine is; nothing bad is known of one that there is not.

    Raises:
        BangerError: as :func:`driver_of`.
    """
    if identity is None:
        return Condition()
    return driver_of(services, vm).condition(machine_of(services, vm, identity))


def _present(services: Services, vm: Vm) -> list[Capability]:
    return [one for one in services.host.capabilities if one.applies(vm)]


def _wanted(services: Services, vm: Vm) -> set[DeviceKind]:
    """The kinds of devices that its machine is to have."""
    return {Drive, *(kind for one in _present(services, vm) for kind in one.devices(vm))}


def wait_over(services: Services, vm: Vm, identity: ProcessIdentity, timeout_s: float, token: CancelToken) -> bool:
    """Wait until a machine is gone, or cannot go on because its guest has powered off.

    False on timeout, and soon after ``token`` is cancelled.
    """
    processes = services.vms.vmms.processes
    if driver_of(services, vm).has_power_switch:
        return processes.wait_exit(identity, timeout_s, token)
    deadline = Deadline.after(timeout_s)
    while not processes.wait_exit(identity, deadline.at_most(_LOOK_S), token):
        if deadline.expired or token.cancelled:
            return False
        if condition_of(services, vm, identity).health is Health.HALTED:
            return True
    return True


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
    unknown = [mount for mount in wanted if mount not in services.vms.boot.mounts]
    if unknown:
        raise _cannot(vm, f'its guest cannot mount the drive "{unknown[0].label}" on "{unknown[0].path}"', "")


def _cannot(vm: Vm, cause: str, hint: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f'VM "{vm.name}" cannot run here', subject=vm.name, cause=cause, hint=hint)
