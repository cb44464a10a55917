"""Starting a VM: a plan of steps, each recorded before it is done and undone if a later one fails."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from banger.actors import kept_disks, suspended_files
from banger.actors.guest_configuration import configure_guest, run_boot_command
from banger.actors.incident_recorder import IncidentRecorder, Start
from banger.actors.services import Services
from banger.actors.vm_bringup import LAUNCH, Bringup, Ingredients
from banger.actors.vm_files import VmFiles
from banger.actors.vm_identity import renew_identity
from banger.actors.vm_machines import machine_of
from banger.actors.vm_suspend import sleep_again
from banger.actors.vm_teardown import tear_down
from banger.core.crashpoints import crashpoint
from banger.core.identity import Renewal, RenewalEvent
from banger.core.image_command import command_of_run
from banger.core.models import ProcessIdentity, Vm
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.plan import PlanStep, run_plan
from banger.core.ports import (
    Capability,
    Contribution,
    Device,
    Drive,
    Engine,
    GuestConfig,
    GuestNetwork,
    TapNic,
    UserNic,
    VmmConfig,
    joined,
)
from banger.host.cascade import run_all
from banger.host.uids import held_by

#: By this label the guest's init finds the modules of its kernel.
MODULES_LABEL = "modules"

#: How long a guest whose init has said that it is up may take to answer.
_CONNECT_TIMEOUT_S = 30.0


class VmStart:
    """One start of one VM. ``run`` returns the facts of the running VM; nothing is left behind if it raises."""

    def __init__(self, services: Services, what: Ingredients, operation: Operation, recorder: IncidentRecorder) -> None:
        self._services = services
        self._what = what
        self._vm = what.vm
        self._operation = operation
        self._recorder = recorder
        self._files = VmFiles(services.layout, what.vm.id)
        self._ledger = services.host.ledger.of(what.vm.id)
        self._storage = services.host.storages.named(what.vm.storage)
        self._capabilities = [one for one in services.host.capabilities if one.applies(what.vm)]
        self._contributions: list[Contribution] = []
        self._disk: list[Drive] = []
        self._kernel_file = Path()
        self._is_spent = False  # of a suspended VM: what it was suspended to is behind its disk by now
        self._bringup = Bringup(services, what, operation, self._configure, self._process_exists)

    def run(self) -> Vm:
        """Carry out the plan. The first step's undo is the whole cascade, whichever step fails."""
        if (
            self._what.origin is None or self._what.origin.event is not RenewalEvent.REWIND
        ):  # a cleanup that failed may have left it undecided
            run_all(kept_disks.put_back_step(self._vm, self._files.directory, self._ledger, needs=()))
        self._services.host.ledger.begin(self._vm)
        crashpoint("vm.start:ledger-begun")
        steps = [PlanStep("attach disk", self._attach_disk, undo=self._undo)]
        steps += [PlanStep(f"prepare {one.name}", lambda one=one: self._prepare(one)) for one in self._capabilities]  # type: ignore[misc]
        launch = PlanStep(LAUNCH, self._bringup.launch, intend=self._bringup.intend)
        if self._what.saved:
            steps += [PlanStep("prepare machine", self._prepare_machine), launch, PlanStep("resume", self._resume)]
        else:
            steps += [PlanStep("prepare boot", self._prepare_boot), launch, PlanStep("boot guest", self._bringup.boot)]
        steps.append(PlanStep("connect", self._connect))
        if self._ledger.of(kept_disks.KIND):
            steps.append(PlanStep("give up old disk", self._give_up_old_disk))
        run_plan(steps, self._operation, self._failed)
        self._files.initrd.unlink(missing_ok=True)  # the VMM has read it; it holds the guest's host key
        return self._running()

    @property
    def identity(self) -> ProcessIdentity:
        """The VMM that was started."""
        return self._bringup.identity

    def _running(self) -> Vm:
        """The row of the VM as it now is on the host."""
        given = joined(self._contributions)
        return replace(
            self._vm,
            ports=given.ports,
            address=given.address,
            network=given.network_name or self._vm.spec.network,
            network_reason=given.network_reason,
            accelerator=self._bringup.engine.accelerator,
            pid=self.identity.pid,
        )

    def _failed(self, error: BaseException) -> None:
        start = Start(self._what.image, self._what.kernel, self._bringup.engine.accelerator, self.identity)
        self._recorder.start_failed(self._vm, error, start)
        if self._is_spent:
            sleep_again(self._services, self._vm, self.identity, self._operation)

    def _undo(self) -> None:
        tear_down(self._services, self._vm, self.identity)

    def _give_up_old_disk(self) -> None:
        """Of a VM that was rewound and answers: from here on there is no way back."""
        kept_disks.give_up(self._files.directory, self._ledger, self._services.layout)

    # -- steps -----------------------------------------------------------------------------------------

    def _attach_disk(self) -> None:
        rootfs = self._services.layout.image_rootfs(self._what.image)
        self._disk = list(self._storage.attach(self._vm.id, self._files.directory, rootfs, self._ledger))
        crashpoint("vm.start:disk-attached")

    def _prepare(self, capability: Capability) -> None:
        self._contributions.append(capability.prepare(self._vm, self._what.image, self._ledger, self._operation))

    def _prepare_boot(self) -> None:
        services, spec, image, driver = self._services, self._vm.spec, self._what.image, self._what.driver
        given, kernel = joined(self._contributions), self._what.kernel
        kernel_dir = services.layout.kernel_dir(kernel.id)
        self._find_kernel()
        toolbox = services.vms.boot.toolbox(kernel_dir, kernel.id, self._operation)
        config = GuestConfig(
            hostname=spec.hostname or self._vm.name,
            authorized_key=services.vms.authorized_key,
            host_key_seed=self._files.host_key_seed(),
            init=spec.init.value,
            env=(*image.config.env, *spec.env),
            network=given.network or GuestNetwork("10.0.2.15/32"),
            files=given.files,
            root=self._storage.root,
            mounts=given.mounts,
            drives=() if driver.names_drives else [one.label for one in self._devices() if isinstance(one, Drive)],
            carrier=driver.agent_carrier,
            has_power_switch=driver.has_power_switch,
            command=self._boot_command(),
            user=spec.user or image.config.user,
            workdir=spec.workdir or image.config.workdir,
            directories=self._directories(),
            vm_id=self._vm.id,
        )
        services.vms.boot.initrd(toolbox, config, self._files.initrd)
        crashpoint("vm.start:initrd-written")

    def _find_kernel(self) -> None:
        kernel_dir = self._services.layout.kernel_dir(self._what.kernel.id)
        self._kernel_file = self._services.vms.boot.kernel(kernel_dir, self._what.driver.kernel_format, self._operation)

    def _prepare_machine(self) -> None:
        """For one that goes on: nobody meets its guest before that knows who it is."""
        for capability in self._capabilities:
            capability.hold(self._vm, self._ledger)
        crashpoint("vm.restore:held")
        self._find_kernel()

    def _resume(self) -> None:
        crashpoint("vm.restore:machine-loaded")
        if self._what.origin and self._what.origin.event is RenewalEvent.WAKE:
            suspended_files.spend(self._services.layout, self._vm.id)
            self._is_spent = True
            crashpoint("vm.wake:spent")
        machine = machine_of(self._services, self._vm, self.identity)
        self._what.driver.resume(machine, self._operation.haste)

    def _boot_command(self) -> tuple[str, ...]:
        """What a detached run has the guest start with every boot."""
        spec = self._vm.spec
        return () if spec.command is None else command_of_run(self._what.image.config, spec.entrypoint, spec.command)

    def _directories(self) -> tuple[str, ...]:
        """What the image's configuration or the spec names and perhaps no layer has, as ``docker run`` makes it."""
        config = self._what.image.config
        named = (self._vm.spec.workdir or config.workdir, *config.volumes)
        return tuple(path for path in named if path.startswith("/") and path.isprintable())

    def _configure(self, engine: Engine) -> VmmConfig:
        """The machine, on one engine."""
        services, vm, kernel, driver = self._services, self._vm, self._what.kernel, self._what.driver
        on_trial = engine.pace is not None
        return VmmConfig(
            vm_id=vm.id,
            name=vm.name,
            run_dir=self._files.run_dir,
            kernel=self._kernel_file,
            initrd=self._files.initrd,
            cmdline=" ".join(filter(None, (services.vms.boot.cmdline(verbose=on_trial), kernel.cmdline))),
            cpus=vm.spec.cpus,
            memory_mib=vm.spec.memory_mib,
            devices=self._devices(),
            options=driver.options(vm.spec),
            accelerator=engine.accelerator,
            console_log=self._files.console_log,
            vmm_log=self._files.vmm_log,
            version=vm.vmm_version,
            uid=held_by(self._ledger),
            saved=self._what.saved,
        )

    def _devices(self) -> list[Device]:
        """Drives first: the storage driver's, the capabilities', and the kernel's modules, which its VMs share."""
        modules = self._services.layout.kernel_dir(self._what.kernel.id) / "modules.ext4"
        given = joined(self._contributions).devices
        drives = [*self._disk, *(device for device in given if isinstance(device, Drive))]
        if modules.exists():
            drives.append(Drive(modules, MODULES_LABEL, read_only=True))
        return [*drives, *(device for device in given if not isinstance(device, Drive))]

    def _renewal(self, origin: Origin) -> Renewal:
        """Who the guest is to be that goes on from another one's memory."""
        given, vm = joined(self._contributions), self._vm
        card = next((one for one in given.devices if isinstance(one, TapNic | UserNic)), None)
        return Renewal(
            event=origin.event,
            vm_id=vm.id,
            name=vm.name,
            saved_vm_id=origin.snapshot.vm_id,
            saved_name=origin.snapshot.vm_name,
            hostname=vm.spec.hostname or vm.name,
            host_key_seed=self._files.host_key_seed(),
            mac=card.mac if isinstance(card, TapNic) else "",
            network=given.network if card else None,  # without one, it has an address on its loopback alone
        )

    def _process_exists(self, identity: ProcessIdentity) -> None:
        crashpoint("vm.start:process-spawned")
        self._ledger.activate("process", identity.marker, asdict(identity))

    def _connect(self) -> None:
        crashpoint("vm.start:booted")
        vm = self._running()
        with self._bringup.lasting() as token:
            self._services.vms.guests.connect(vm, self._operation, _CONNECT_TIMEOUT_S, token)
            if self._what.origin:
                renewal = self._renewal(self._what.origin)
                renew_identity(self._services.vms, vm, renewal, self._operation, token)
                crashpoint("vm.restore:identity-renewed")
                if self._what.origin.template:
                    configure_guest(self._services.vms, vm, self._what.image, self._operation, token)
        for capability in self._capabilities:
            capability.started(vm, self._ledger)
        if self._what.origin and self._what.origin.template and (command := self._boot_command()):
            run_boot_command(self._services.vms, vm, self._what.image, command, self._operation)
