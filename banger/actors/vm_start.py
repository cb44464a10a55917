"""How a VM comes up: a plan of steps, each written down before it is done and undone if a later one fails."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.actors.vm_teardown import ports_in_use, tear_down
from banger.core import console
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel, PortForward, ProcessIdentity, Vm
from banger.core.names import vmm_marker
from banger.core.operation import Operation
from banger.core.plan import PlanStep, run_plan
from banger.core.ports import Drive, GuestConfig, VmmConfig
from banger.host.loopback_ports import choose_ports

#: By this serial the guest's init finds the modules of its kernel.
MODULES_SERIAL = "modules"

#: How often the console is looked at while a guest boots, in seconds.
CONSOLE_POLL_S = 0.02


class VmStart:
    """One start of one VM. ``run`` returns the facts of the running VM; nothing is left behind if it raises."""

    def __init__(self, services: Services, vm: Vm, image: Image, kernel: Kernel, operation: Operation) -> None:
        self._services = services
        self._vm = vm
        self._image = image
        self._kernel = kernel
        self._operation = operation
        self._files = VmFiles(services.layout, vm.id)
        self._ports: tuple[PortForward, ...] = ()
        self._ssh_port = 0
        self._identity = ProcessIdentity(0, 0, "", vmm_marker(vm.id))
        self._accelerator = ""
        self._console_offset = 0

    def run(self) -> Vm:
        """Carry out the plan."""
        run_plan(
            [
                PlanStep("choose ports", self._choose_ports, undo=self._forget_ports),
                PlanStep("prepare boot", self._prepare_boot, undo=self._remove_initrd),
                PlanStep("start VMM", self._launch, intend=self._intend_process, undo=self._kill),
                PlanStep("boot guest", self._await_boot),
                PlanStep("connect", self._connect, undo=self._disconnect),
            ],
            self._operation,
        )
        self._files.initrd.unlink(missing_ok=True)  # the VMM has read it; it holds the guest's host key
        return replace(
            self._vm,
            ports=self._ports,
            ssh_port=self._ssh_port,
            address="127.0.0.1",
            accelerator=self._accelerator,
            pid=self._identity.pid,
        )

    @property
    def identity(self) -> ProcessIdentity:
        """The VMM that was started."""
        return self._identity

    # -- steps -----------------------------------------------------------------------------------------

    def _choose_ports(self) -> None:
        wanted = [PortForward(self._services.boot.ssh_port), *self._vm.spec.ports]
        chosen = choose_ports(wanted, ports_in_use(self._services, self._vm.id))
        for forward in chosen:
            key = f"{forward.host_address}:{forward.host_port}"
            self._services.store.handles.intend(self._vm.id, "port", key, {"guest_port": forward.guest_port})
        crashpoint("vm.start:ports-written")
        self._ssh_port = chosen[0].host_port
        self._ports = tuple(chosen[1:])

    def _forget_ports(self) -> None:
        self._services.store.handles.strike(self._vm.id, "port")

    def _prepare_boot(self) -> None:
        services, spec = self._services, self._vm.spec
        toolbox = services.boot.toolbox(services.layout.kernel_dir(self._kernel.id), self._kernel.id, self._operation)
        config = GuestConfig(
            hostname=self._vm.name,
            authorized_key=services.authorized_key,
            host_key_seed=self._files.host_key_seed(),
            init=spec.init.value,
            ssh_port=services.boot.ssh_port,
            env=(*self._image.config.env, *spec.env),
            network=spec.network,
            files={},
        )
        services.boot.initrd(toolbox, config, self._files.initrd)
        crashpoint("vm.start:initrd-written")

    def _remove_initrd(self) -> None:
        self._files.initrd.unlink(missing_ok=True)

    def _intend_process(self) -> None:
        self._services.store.handles.intend(self._vm.id, "run_dir", str(self._files.run_dir))
        self._services.store.handles.intend(self._vm.id, "process", self._identity.marker)
        crashpoint("vm.start:process-intended")

    def _launch(self) -> None:
        services, vm = self._services, self._vm
        self._files.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._console_offset = self._files.console_size()
        boot = {"offset": self._console_offset}
        services.store.handles.intend(vm.id, "console", str(self._files.console_log), boot)
        self._accelerator = services.vmm.accelerator()
        if self._accelerator == "tcg":
            self._operation.note("no working KVM: the machine is emulated, which is slower")
        kernel_dir = services.layout.kernel_dir(self._kernel.id)
        config = VmmConfig(
            vm_id=vm.id,
            name=vm.name,
            run_dir=self._files.run_dir,
            kernel=kernel_dir / "vmlinuz",
            initrd=self._files.initrd,
            cmdline=" ".join(filter(None, (services.boot.cmdline(), self._kernel.cmdline))),
            cpus=vm.spec.cpus,
            memory_mib=vm.spec.memory_mib,
            drives=self._drives(kernel_dir / "modules.ext4"),
            forwards=[PortForward(services.boot.ssh_port, self._ssh_port), *self._ports],
            network=vm.spec.network,
            machine=vm.spec.machine or services.config.text("vmm.machine"),
            accelerator=self._accelerator,
            console_log=self._files.console_log,
            vmm_log=self._files.vmm_log,
        )
        self._identity = services.vmm.launch(config, self._process_exists)

    def _drives(self, modules: Path) -> list[Drive]:
        """The storage driver's, and the kernel's modules, which all VMs of that kernel share."""
        rootfs = self._services.layout.image_rootfs(self._image)
        drives = list(self._services.storage.drives(self._files.directory, rootfs))
        if modules.exists():
            drives.append(Drive(modules, MODULES_SERIAL, read_only=True))
        return drives

    def _process_exists(self, identity: ProcessIdentity) -> None:
        self._identity = identity
        crashpoint("vm.start:process-spawned")
        self._services.store.handles.activate(self._vm.id, "process", identity.marker, asdict(identity))

    def _kill(self) -> None:
        tear_down(self._services, self._vm, self._identity)

    def _await_boot(self) -> None:
        """Watch the console until the init says ready; only a hint, :meth:`_connect` proves it."""
        operation = self._operation
        limit = self._operation.elapsed_s + self._services.config.seconds("vm.boot_timeout_s")
        while True:
            text = self._files.console_from(self._console_offset)
            marks = console.boot_marks(text)
            if marks.failure:
                raise self._boot_failed(marks.failure, text)
            if marks.ready_s is not None:
                return
            if not self._services.vmm.is_alive(self._identity):
                raise self._boot_failed("the machine ended while it booted", text)
            if operation.elapsed_s > limit:
                raise self._boot_failed("the guest did not come up in time", text, ErrorKind.TIMEOUT)
            operation.deadline.raise_if_expired("waiting for the guest to boot")
            operation.token.wait(CONSOLE_POLL_S)
            operation.token.raise_if_cancelled()

    def _boot_failed(self, reason: str, text: str, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> BangerError:
        return BangerError(
            kind,
            f'VM "{self._vm.name}" did not boot: {reason}',
            subject=self._vm.name,
            cause=console.last_lines(text),
            hint="check the kernel and the image: banger doctor",
        )

    def _connect(self) -> None:
        crashpoint("vm.start:booted")
        access = self._services.access(replace(self._vm, ssh_port=self._ssh_port))
        self._services.guests.connect(access, self._operation, timeout_s=30.0)

    def _disconnect(self) -> None:
        self._services.guests.disconnect(self._vm.id)
