"""How a VM comes up: a plan of steps, each written down before it is done and undone if a later one fails."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from loguru import logger

from banger.actors.boot_failure import Boot, boot_failed
from banger.actors.incident_recorder import IncidentRecorder, Start
from banger.actors.messages import CreateVm
from banger.actors.services import Services
from banger.actors.vm_boot import BootWatch, NotUpError
from banger.actors.vm_files import VmFiles
from banger.actors.vm_teardown import tear_down
from banger.core.boot_pace import with_memory
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.image_command import command_of_run
from banger.core.models import ExitReason, Image, Kernel, ProcessIdentity, Vm
from banger.core.names import vmm_marker
from banger.core.operation import Operation
from banger.core.plan import PlanStep, run_plan
from banger.core.ports import (
    Capability,
    Contribution,
    Drive,
    Engine,
    EngineError,
    GuestConfig,
    GuestNetwork,
    Nic,
    VmmConfig,
)

#: By this serial the guest's init finds the modules of its kernel.
MODULES_SERIAL = "modules"

#: The steps that start a VMM: the first, and the second if KVM is given up.
_LAUNCHES = ("start VMM", "start VMM emulated")


class VmStart:
    """One start of one VM. ``run`` returns the facts of the running VM; nothing is left behind if it raises."""

    def __init__(
        self,
        services: Services,
        vm: Vm,
        image: Image,
        kernel: Kernel,
        operation: Operation,
        incidents: IncidentRecorder,
    ) -> None:
        self._services = services
        self._vm = vm
        self._image = image
        self._kernel = kernel
        self._operation = operation
        self._incidents = incidents
        self._files = VmFiles(services.layout, vm.id)
        self._ledger = services.ledger.of(vm.id)
        self._storage = services.storages[vm.storage]
        self._capabilities = [one for one in services.capabilities if one.applies(vm)]
        self._watch = BootWatch(services, self._files, operation)
        self._contributions: list[Contribution] = []
        self._disk: list[Drive] = []
        self._identity = ProcessIdentity(0, 0, "", vmm_marker(vm.id))
        self._engine = Engine("", "")

    def run(self) -> Vm:
        """Carry out the plan. The first step's undo is the whole cascade, whichever step fails."""
        self._services.ledger.begin(self._vm)
        crashpoint("vm.start:ledger-begun")
        steps = [PlanStep("attach disk", self._attach_disk, undo=self._undo)]
        steps += [PlanStep(f"prepare {one.name}", lambda one=one: self._prepare(one)) for one in self._capabilities]  # type: ignore[misc]
        steps += [
            PlanStep("prepare boot", self._prepare_boot),
            PlanStep(_LAUNCHES[0], self._launch_first, intend=self._intend_process),
            PlanStep("boot guest", self._boot),
            PlanStep("connect", self._connect),
        ]
        run_plan(steps, self._operation, self._failed)
        self._files.initrd.unlink(missing_ok=True)  # the VMM has read it; it holds the guest's host key
        return self._running()

    @property
    def identity(self) -> ProcessIdentity:
        """The VMM that was started."""
        return self._identity

    def _running(self) -> Vm:
        """The row of the VM as it now is on the host."""
        given = self._contributions
        return replace(
            self._vm,
            ports=tuple(port for one in given for port in one.ports),
            ssh_port=next((one.ssh_port for one in given if one.ssh_port), 0),
            address=next((one.address for one in given if one.address), ""),
            accelerator=self._engine.accelerator,
            pid=self._identity.pid,
        )

    def _failed(self, error: BaseException) -> None:
        start = Start(self._image, self._kernel, self._engine.accelerator, self._identity)
        self._incidents.start_failed(self._vm, error, start)

    def _undo(self) -> None:
        tear_down(self._services, self._vm, self._identity)

    # -- steps -----------------------------------------------------------------------------------------

    def _attach_disk(self) -> None:
        rootfs = self._services.layout.image_rootfs(self._image)
        self._disk = list(self._storage.attach(self._vm.id, self._files.directory, rootfs, self._ledger))
        crashpoint("vm.start:disk-attached")

    def _prepare(self, capability: Capability) -> None:
        self._contributions.append(capability.prepare(self._vm, self._image, self._ledger, self._operation))

    def _prepare_boot(self) -> None:
        services, spec, given = self._services, self._vm.spec, self._contributions
        toolbox = services.boot.toolbox(services.layout.kernel_dir(self._kernel.id), self._kernel.id, self._operation)
        config = GuestConfig(
            hostname=spec.hostname or self._vm.name,
            authorized_key=services.authorized_key,
            host_key_seed=self._files.host_key_seed(),
            init=spec.init.value,
            ssh_port=services.boot.ssh_port,
            env=(*self._image.config.env, *spec.env),
            network=next((one.network for one in given if one.network), GuestNetwork("127.0.0.2/8")),
            files={path: content for one in given for path, content in one.files.items()},
            root=self._storage.root,
            home=any(one.home for one in given),
            command=self._boot_command(),
            user=spec.user or self._image.config.user,
            workdir=spec.workdir or self._image.config.workdir,
            directories=self._directories(),
            vm_id=self._vm.id,
        )
        services.boot.initrd(toolbox, config, self._files.initrd)
        crashpoint("vm.start:initrd-written")

    def _boot_command(self) -> tuple[str, ...]:
        """What a detached run has the guest start with every boot."""
        spec = self._vm.spec
        return () if spec.command is None else command_of_run(self._image.config, spec.entrypoint, spec.command)

    def _directories(self) -> tuple[str, ...]:
        """What the image's configuration or the spec names and perhaps no layer has, as ``docker run`` makes it."""
        named = (self._vm.spec.workdir or self._image.config.workdir, *self._image.config.volumes)
        return tuple(path for path in named if path.startswith("/") and path.isprintable())

    def _intend_process(self) -> None:
        self._ledger.intend("run_dir", str(self._files.run_dir))
        self._ledger.intend("process", self._identity.marker)
        for kind, key in self._services.vmm.holds(self._vm.id):
            self._ledger.intend(kind, key)
        crashpoint("vm.start:process-intended")

    def _launch_first(self) -> None:
        """Start the VMM on the engine that promises most."""
        self._engine = self._services.vmm.engines.choose(self._vm.spec.accelerator, self._kernel.digest)
        if self._engine.accelerator == "tcg" and not self._engine.forced:
            self._operation.note("no working KVM: the machine is emulated, which is slower")
        try:
            self._launch()
        except EngineError as error:
            self._services.vmm.engines.forget(self._kernel.digest)
            if self._engine.forced:
                raise
            self._give_up_kvm(f"KVM does not take the machine: {error.cause}")
            self._launch()

    def _give_up_kvm(self, reason: str) -> None:
        self._operation.note(f"{reason}: the machine is emulated, which is slower")
        logger.warning("{}: {}", self._vm.name, reason)
        self._engine = Engine("tcg", reason)

    def _launch(self) -> None:
        services, vm = self._services, self._vm
        self._files.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._watch = BootWatch(services, self._files, self._operation)
        begins = {"offset": self._watch.console_offset, "vmm_log_offset": self._watch.log_offset}
        self._ledger.intend("console", str(self._files.console_log), begins)
        kernel_dir = services.layout.kernel_dir(self._kernel.id)
        on_trial = self._engine.pace is not None
        config = VmmConfig(
            vm_id=vm.id,
            name=vm.name,
            run_dir=self._files.run_dir,
            kernel=kernel_dir / "vmlinuz",
            initrd=self._files.initrd,
            cmdline=" ".join(filter(None, (services.boot.cmdline(verbose=on_trial), self._kernel.cmdline))),
            cpus=vm.spec.cpus,
            memory_mib=vm.spec.memory_mib,
            drives=self._drives(kernel_dir / "modules.ext4"),
            nic=self._nic(),
            machine=vm.spec.machine or services.config.text("vmm.machine"),
            accelerator=self._engine.accelerator,
            console_log=self._files.console_log,
            vmm_log=self._files.vmm_log,
        )
        self._identity = services.vmm.launch(config, self._process_exists, self._operation.haste)

    def _nic(self) -> Nic:
        nic = next((one.nic for one in self._contributions if one.nic is not None), None)
        if nic is None:
            network = self._vm.spec.network
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f'this daemon has no network "{network}" for VM "{self._vm.name}"',
                subject=network,
                cause="taps take root, or the capability CAP_NET_ADMIN, and /dev/net/tun" if network == "tap" else "",
                hint="banger doctor; or make the VM with --network user",
            )
        return nic

    def _drives(self, modules: Path) -> list[Drive]:
        """The storage driver's, the capabilities', and the kernel's modules, which all VMs of that kernel share."""
        drives = [*self._disk, *(drive for one in self._contributions for drive in one.drives)]
        if modules.exists():
            drives.append(Drive(modules, MODULES_SERIAL, read_only=True))
        return drives

    def _process_exists(self, identity: ProcessIdentity) -> None:
        self._identity = identity
        crashpoint("vm.start:process-spawned")
        self._ledger.activate("process", identity.marker, asdict(identity))

    def _boot(self) -> None:
        """Wait for the guest. Where KVM may be to blame that it does not come up, this very start goes on emulated."""
        engines, pace = self._services.vmm.engines, self._engine.pace
        try:
            self._watch.wait(self._identity, pace and with_memory(pace, self._vm.spec.memory_mib))
        except NotUpError as down:
            if down.broke:
                engines.forget(self._kernel.digest)
            if not self._may_go_on_emulated(down):
                raise self._boot_failed(down.reason, down.kind) from None
            self._go_on_emulated(down.reason)
        else:
            if pace is not None:
                engines.keep(self._kernel.digest)

    def _may_go_on_emulated(self, down: NotUpError) -> bool:
        engine = self._engine
        on_trial = engine.pace is not None or down.broke
        is_suspect = engine.accelerator == "kvm" and not engine.forced and down.doubtful and on_trial
        return is_suspect and not self._was_killed(down)

    def _was_killed(self, down: NotUpError) -> bool:
        """The VMM was ended from outside, or for want of memory, which says nothing of KVM."""
        vmm = self._services.vmm
        if not vmm.wait_exit(self._identity, 0.0):  # hears how, too
            return False
        record = vmm.exit_record(self._vm.id, self._identity, down.console, self._files.vmm_log)
        return record.reason in (ExitReason.KILLED, ExitReason.OUT_OF_MEMORY)

    def _go_on_emulated(self, reason: str) -> None:
        """What comes up emulated and did not on KVM is KVM's fault, which is remembered; what does not is its own."""
        services = self._services
        self._give_up_kvm(f"this kernel does not come up on KVM here: {reason}")
        with self._operation.step("end VMM", is_cleanup=True):
            services.vmm.kill(self._identity)
            for kind, key in services.vmm.holds(self._vm.id):
                services.vmm.release(kind, key)
        crashpoint("vm.start:kvm-given-up")
        self._intend_process()
        with self._operation.step(_LAUNCHES[1]):
            self._launch()
        try:
            self._watch.wait(self._identity, None)
        except NotUpError as down:
            raise self._boot_failed(down.reason, down.kind) from None
        services.vmm.engines.keep(self._kernel.digest, reason)

    def _boot_failed(self, told: str, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> BangerError:
        begun_s = next((step.started_s for step in reversed(self._operation.steps) if step.name in _LAUNCHES), 0.0)
        boot = Boot(
            vm=self._vm,
            image=self._image,
            kernel=self._kernel,
            identity=self._identity,
            accelerator=self._engine.accelerator,
            console_offset=self._watch.console_offset,
            vmm_log_offset=self._watch.log_offset,
            elapsed_s=self._operation.elapsed_s - begun_s,
            is_new=self._operation.kind == CreateVm.verb,
            told=told,
        )
        return boot_failed(self._services, boot, kind)

    def _connect(self) -> None:
        crashpoint("vm.start:booted")
        vm = self._running()
        try:
            self._services.guests.connect(vm, self._operation, timeout_s=30.0)
        except BangerError as error:
            is_alive = self._services.vmm.is_alive(self._identity)
            if is_alive and error.kind is not ErrorKind.TIMEOUT:
                raise
            raise self._boot_failed(error.message if is_alive else "the machine ended", error.kind) from error
        for capability in self._capabilities:
            capability.started(vm, self._ledger)
