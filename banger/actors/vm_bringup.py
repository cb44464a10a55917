"""Launching a VM's machine and booting its guest, with a second try on another engine if the first is to blame.

Where KVM promises guests and lets kernels hang, the same start goes on emulated, and the verdict is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from loguru import logger

from banger.actors.boot_failure import Boot, boot_failed
from banger.actors.messages import CreateVm
from banger.actors.services import Services
from banger.actors.vm_boot import BootWatch, NotUpError
from banger.actors.vm_files import VmFiles
from banger.actors.vm_machines import machine_of
from banger.core.boot_pace import with_memory
from banger.core.cancel import CancelToken
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, Image, Kernel, ProcessIdentity, Vm
from banger.core.names import vmm_marker
from banger.core.operation import Operation
from banger.core.origin import Origin
from banger.core.ports import Engine, EngineError, SavedMachine, VmmConfig, VmmDriver

#: The steps that start a VMM: the first, and the second on another engine.
LAUNCH, LAUNCH_AGAIN = "start VMM", "start VMM emulated"


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What is started: the VM with what it is made of, and its driver. A first start may have an ``origin``."""

    vm: Vm
    image: Image
    kernel: Kernel
    driver: VmmDriver
    origin: Origin | None = None

    @property
    def saved(self) -> SavedMachine | None:
        """The machine that goes on instead of one that boots."""
        return self.origin.machine if self.origin else None


class Bringup:
    """One launch and one boot, perhaps a second of both. The process is taken down by whoever asked for it."""

    def __init__(
        self,
        services: Services,
        what: Ingredients,
        operation: Operation,
        configure: Callable[[Engine], VmmConfig],
        on_spawn: Callable[[ProcessIdentity], None],
    ) -> None:
        """Nothing is started yet.

        Args:
            services: as the owner's.
            what: is brought up.
            operation: steps and notes go there.
            configure: makes the configuration for an engine.
            on_spawn: writes down a process that exists.
        """
        self._services = services
        self._what = what
        self._operation = operation
        self._configure = configure
        self._on_spawn = on_spawn
        self._files = VmFiles(services.layout, what.vm.id)
        self._ledger = services.host.ledger.of(what.vm.id)
        self._watch = self._new_watch()
        self.engine = Engine("", "")
        self.identity = ProcessIdentity(0, 0, "", vmm_marker(what.vm.id))

    def intend(self) -> None:
        """Write down what a launch makes."""
        self._ledger.intend("run_dir", str(self._files.run_dir))
        self._ledger.intend("process", self.identity.marker)
        for kind, key in self._services.vms.vmms.launcher.holds(self._what.vm.id):
            self._ledger.intend(kind, key)
        self._services.host.uids.take(self._what.vm.id, self._ledger)
        crashpoint("vm.start:process-intended")

    def launch(self) -> None:
        """Start the VMM on the engine that promises most."""
        engines, kernel = self._what.driver.engines, self._what.kernel
        saved = self._what.saved
        self.engine = engines.choose(saved.accelerator if saved else self._what.vm.spec.accelerator, kernel.digest)
        if self.engine.is_emulated and not self.engine.forced:
            self._operation.note("no working KVM: the machine is emulated, which is slower")
        try:
            self._launch()
        except EngineError as error:
            engines.forget(kernel.digest)
            if not self._switched_engine(f"KVM does not take the machine: {error.cause}"):
                raise
            self._launch()

    def boot(self) -> None:
        """Wait for the guest. Where its engine may be to blame that it does not come up, the start goes on on another.

        Raises:
            BangerError: it does not come up, with all that is known of the cause.
        """
        engines, pace = self._what.driver.engines, self.engine.pace
        try:
            self._watch.wait(self.identity, pace and with_memory(pace, self._what.vm.spec.memory_mib))
        except NotUpError as down:
            if down.broke:
                engines.forget(self._what.kernel.digest)
            if not self._engine_is_suspect(down):
                raise self.failed(down.reason, down.kind) from None
            reason = f"this kernel does not come up on KVM here: {down.reason}"
            if not self._switched_engine(reason):
                raise self.failed(down.reason, down.kind) from None
            self._boot_again(down.reason)
        else:
            if pace is not None:
                engines.keep(self._what.kernel.digest)

    @contextmanager
    def lasting(self) -> Iterator[CancelToken]:
        """Somebody waits for the guest's answer on the token that this gives, which is set if the guest fails first.

        Raises:
            BangerError: as :meth:`boot` if it fails, ends or does not answer; otherwise what the block raises.
        """
        try:
            with self._watch.lasting(self.identity) as token:
                yield token
        except NotUpError as down:
            raise self.failed(down.reason, down.kind) from None
        except BangerError as error:
            is_alive = self._services.vms.vmms.processes.is_alive(self.identity)
            if is_alive and error.kind is not ErrorKind.TIMEOUT:
                raise
            raise self.failed(error.message if is_alive else "the machine ended", error.kind) from error

    def failed(self, told: str, kind: ErrorKind = ErrorKind.UNAVAILABLE) -> BangerError:
        """The error of a boot that failed, or of a guest that did not go on; call it before anything is taken down."""
        vm = self._what.vm
        if self._what.saved:
            return BangerError(
                kind, f'VM "{vm.name}" did not go on', subject=vm.name, cause=told, hint=f"banger vm why {vm.name}"
            )
        launches = (LAUNCH, LAUNCH_AGAIN)
        begun_s = next((step.started_s for step in reversed(self._operation.steps) if step.name in launches), 0.0)
        boot = Boot(
            vm=vm,
            image=self._what.image,
            kernel=self._what.kernel,
            driver=self._what.driver,
            identity=self.identity,
            accelerator=self.engine.accelerator,
            console_offset=self._watch.console_offset,
            vmm_log_offset=self._watch.log_offset,
            elapsed_s=self._operation.elapsed_s - begun_s,
            is_new=self._operation.kind == CreateVm.verb,
            told=told,
        )
        return boot_failed(self._services, boot, kind)

    def _new_watch(self) -> BootWatch:
        unhurried = bool(self._what.vm.makes_template)
        return BootWatch(self._services, self._what.driver, self._files, self._operation, is_unhurried=unhurried)

    def _launch(self) -> None:
        self._files.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._watch = self._new_watch()
        begins = {"offset": self._watch.console_offset, "vmm_log_offset": self._watch.log_offset}
        self._ledger.intend("console", str(self._files.console_log), begins)
        self._what.driver.launch(self._configure(self.engine), self._spawned, self._operation.haste)

    def _spawned(self, identity: ProcessIdentity) -> None:
        self.identity = identity
        self._on_spawn(identity)

    def _switched_engine(self, reason: str) -> bool:
        """Take another engine, and tell; False if there is none."""
        other = self._what.driver.engines.instead_of(self.engine, reason)
        if other is None:
            return False
        self._operation.note(f"{reason}: the machine is emulated, which is slower")
        logger.warning("{}: {}", self._what.vm.name, reason)
        self.engine = other
        return True

    def _engine_is_suspect(self, down: NotUpError) -> bool:
        on_trial = self.engine.pace is not None or down.broke
        return down.doubtful and on_trial and not self._was_killed(down)

    def _was_killed(self, down: NotUpError) -> bool:
        """The VMM was ended from outside, or for want of memory, which says nothing of what it ran on."""
        vm, processes = self._what.vm, self._services.vms.vmms.processes
        if not processes.wait_exit(self.identity, 0.0):  # hears how, too
            return False
        machine = machine_of(self._services, vm, self.identity)
        outcome = processes.outcome(vm.id, self.identity)
        record = self._what.driver.exit_record(machine, outcome, down.console)
        return record.reason in (ExitReason.KILLED, ExitReason.OUT_OF_MEMORY)

    def _boot_again(self, reason: str) -> None:
        """What comes up emulated and did not on KVM is KVM's fault, which is remembered; what does not is its own."""
        vmms, vm_id = self._services.vms.vmms, self._what.vm.id
        with self._operation.step("end VMM", is_cleanup=True):
            vmms.processes.kill(self.identity)
            for kind, key in vmms.launcher.holds(vm_id):
                vmms.launcher.release(kind, key)
        crashpoint("vm.start:kvm-given-up")
        self.intend()
        with self._operation.step(LAUNCH_AGAIN):
            self._launch()
        try:
            self._watch.wait(self.identity, None)
        except NotUpError as down:
            raise self.failed(down.reason, down.kind) from None
        self._what.driver.engines.keep(self._what.kernel.digest, reason)
