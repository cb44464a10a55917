"""The error of a failed boot: the facts are collected here, :mod:`banger.core.boot_causes` explains them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.actors.vm_machines import machine_of
from banger.core.boot_causes import BootFacts, explain_boot
from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord
from banger.core.models import Image, Kernel, ProcessIdentity, Vm
from banger.core.ports import VmmDriver
from banger.host.resources import cpu_count


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot.

    Attributes:
        console_offset, vmm_log_offset: where its part of the two logs begins.
        elapsed_s: since its VMM was started.
        is_new: the VM is being made, and will be gone if this fails.
        told: what whoever watched it says, in one line.
    """

    vm: Vm
    image: Image
    kernel: Kernel
    driver: VmmDriver
    identity: ProcessIdentity
    accelerator: str
    console_offset: int
    vmm_log_offset: int
    elapsed_s: float
    is_new: bool
    told: str = ""


def boot_failed(services: Services, boot: Boot, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> BangerError:
    """The error to raise. Call it before anything of the machine is taken down: its exit and its logs are looked at."""
    vm, files = boot.vm, VmFiles(services.layout, boot.vm.id)
    is_alive = not services.vms.vmms.processes.wait_exit(boot.identity, 0.0)
    console = files.console_from(boot.console_offset)  # once it is gone, nothing is added any more
    ended = None if is_alive else _end_of(services, boot, console)
    facts = BootFacts(
        console=console,
        accelerator=boot.accelerator,
        elapsed_s=boot.elapsed_s,
        ended=ended,
        vmm_log=files.vmm_log_from(boot.vmm_log_offset),
        vm=vm.name,
        memory_mib=vm.spec.memory_mib,
        kernel=boot.kernel.name,
        image=boot.image.name,
        kernel_arguments=boot.kernel.cmdline,
        alternative=boot.driver.alternative(vm.spec),
        waits_for_host=_waits_for_host(services, boot) if is_alive else "",
        host_load=os.getloadavg()[0] / cpu_count(),
        kept=not boot.is_new,
        told=boot.told,
    )
    cause = explain_boot(facts)
    if cause.doubtful and (fault := services.vms.boot.kernel_fault(services.layout.kernel_dir(boot.kernel.id))):
        cause = explain_boot(replace(facts, kernel_fault=fault))
    return BangerError(
        kind,
        f'VM "{vm.name}" did not boot: {cause.reason}',
        subject=vm.name,
        cause="\n".join(cause.lines),
        hint=cause.hint,
    )


def _end_of(services: Services, boot: Boot, console: str) -> ExitRecord:
    machine = machine_of(services, boot.vm, boot.identity)
    return boot.driver.exit_record(machine, services.vms.vmms.processes.outcome(boot.vm.id, boot.identity), console)


def _waits_for_host(services: Services, boot: Boot) -> str:
    condition = boot.driver.condition(machine_of(services, boot.vm, boot.identity))
    return condition.words if condition.is_stalled else ""
