"""Saving a machine that runs on.

The machine sends its state to another QEMU (``condenser``) as if it moved there. For the last pages it stands still,
and just before them, with all its disks flushed, it waits for us (the capability ``pause-before-switchover``). Having
sent everything it may go on by ``cont``, out of the state ``postmigrate``, as the process that it was: its sockets,
disks and taps were never let go. Measured on QEMU 7.2, emulated, on a host with three times as much to do as it can: an
idle guest of 512 MiB or of 4 GiB stands still for 4 to 20 ms, and for longer where ``forgotten_pages`` has to compare.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import Machine, SavedMachine
from banger.launch import Launching
from banger.posix.files import sync_path, text_or_empty
from banger.vmm import identity as processes
from banger.vmm.log_files import log_tail
from banger.vmm.qemu import condenser, failures, forgotten_pages, migration, qmp
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.launch import qmp_path
from banger.vmm.qemu.state_lines import form_of, written_disks
from banger.vmm.qemu.words import first, options_of
from banger.vmm.saved_files import SavedFiles, no_room, saved_files
from banger.vmm.verdicts import cpu_model

#: What a machine may stand still for, as far as QEMU can guess. What changes its memory faster than it is copied, so
#: often as the passes say, stands still for as long as the rest takes.
_STANDS_STILL_MS = 50
_MOST_PASSES = 8
_COMMAND_TIMEOUT_S = 10.0
#: A page is copied within some microseconds, but on a busy host that is a hundred times as long.
_COPY_TIMEOUT_S, _COPY_S_PER_GIB = 60.0, 60.0
_POLL_S, _SETTLE_S = 0.05, 0.001
#: The driver's name, and the key in a saved machine's details.
NAME, FORM = "qemu", "form"
_EMULATED = "tcg"
_ANEW = "start the VM anew: banger vm restart"


def command_of(machine: Machine) -> list[str]:
    """The command line that a machine was started with, whatever this banger would start now. Empty if it is gone."""
    words = Path(f"/proc/{machine.identity.pid}/cmdline").read_bytes() if processes.is_same(machine.identity) else b""
    return [os.fsdecode(word) for word in words.split(b"\0")[:-1]]


def _uid_of(identity: ProcessIdentity) -> int:
    """The user of a VMM's own; 0 if it has none, or is gone."""
    status = text_or_empty(Path(f"/proc/{identity.pid}/status"))
    uid = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:")), 0)
    return 0 if uid == os.geteuid() else uid


def _mode(binary: Binary) -> int:
    """For its owner alone; who needs the right to write before he opens a file for himself alone has it."""
    return 0o400 if binary.reads_memory_files or os.geteuid() == 0 else 0o600


def cpu_of(option: str) -> str:
    """What a guest sees of a CPU, with the model of the host's."""
    return f"{option} on {cpu_model()}"


@dataclass(frozen=True, slots=True)
class Saving:
    """One save of one machine.

    Attributes:
        binary: the QEMU that helps, which must be the one that runs the machine.
        on_spawn: told of the process that helps.
    """

    machine: Machine
    binary: Binary
    launching: Launching
    on_spawn: Callable[[ProcessIdentity], None]
    token: CancelToken | None

    def save(self, into: Path, standing: Callable[[], None]) -> SavedMachine:
        """As :meth:`banger.core.ports.VmmDriver.save`."""
        argv = command_of(self.machine)
        try:
            with self._monitor() as monitor:
                runs, sizes = self._look(monitor), _sizes(monitor)
        except qmp.QmpError as error:
            raise self._failed(str(error)) from error
        like = condenser.Likeness(self.machine.vm_id, argv, _uid_of(self.machine.identity), sizes)
        for disk in written_disks(argv):
            sync_path(disk)  # which is done once more when the machine stands still, and is the less then
        with saved_files(into, like.memory_mib, _mode(self.binary)) as files:
            files.write_devices(self._condensed(like, files, standing, runs=runs))
        options = options_of(argv)
        return SavedMachine(
            directory=into,
            vmm=NAME,
            vmm_version=self.binary.version,
            cpu=cpu_of(first(options, "-cpu").value or ""),
            accelerator=like.accelerator,
            memory_mib=like.memory_mib,
            details={FORM: form_of(argv)},
        )

    def _look(self, monitor: qmp.QmpSession) -> bool:
        """Whether the machine runs, and does not merely stand still."""
        if monitor.version != self.binary.version:
            raise self._failed(f'it runs on "{monitor.version}", and "{self.binary.version}" is installed now', _ANEW)
        status = monitor.execute("query-status")["status"]
        if status == "postmigrate":  # it was saved while it was paused, and cannot be moved again before it has run
            monitor.execute("cont")
            monitor.execute("stop")
        elif status not in ("running", "paused"):
            raise BangerError(
                ErrorKind.CONFLICT, "the machine cannot be saved: it does not run",
                subject=self.machine.identity.marker, cause=f"it is in the state {status}",
            )  # fmt: skip
        return bool(status == "running")

    def _condensed(
        self, like: condenser.Likeness, files: SavedFiles, standing: Callable[[], None], *, runs: bool
    ) -> bytes:
        """Save the memory, and return all else."""
        helpers: list[ProcessIdentity] = []
        starter = condenser.Starter(self.binary, self.launching)

        def spawned(identity: ProcessIdentity) -> None:
            helpers.append(identity)
            self.on_spawn(identity)

        try:
            with condenser.started(like, files, starter, spawned, self.token) as helper:
                self._move(like, files, helper, standing, runs=runs)
                return helper.devices(_COMMAND_TIMEOUT_S, self.token)
        except qmp.QmpError as error:
            if any(condenser.ran_out_of_room(one) for one in helpers):
                raise no_room(files.memory) from error
            raise self._failed(failures.last_lines(log_tail(files.log)) or str(error)) from error

    def _move(
        self,
        like: condenser.Likeness,
        files: SavedFiles,
        helper: condenser.RunningCondenser,
        standing: Callable[[], None],
        *,
        runs: bool,
    ) -> None:
        """Send the machine's state, and let it go on."""
        copying_s = _COPY_S_PER_GIB * like.memory_mib / 1024
        try:
            with self._monitor() as monitor, self._checking(monitor, like, runs=runs) as memory:
                monitor.allow(_COPY_TIMEOUT_S + copying_s)
                self._begin(monitor, helper)
                _wait_standing(monitor)
                standing()
                if memory is not None:  # the helper looks into it when it takes the devices over
                    memory.complete(files.memory)
                monitor.allow(_COMMAND_TIMEOUT_S + copying_s)
                monitor.execute("migrate-continue", {"state": migration.STANDING})
                migration.wait_sent(monitor)
                if memory is not None:
                    helper.monitor.allow(_COMMAND_TIMEOUT_S + copying_s)
                    migration.wait_received(helper.monitor)
                    memory.complete(files.memory)  # what was under way while it was completed came after that
                    helper.check_devices()
                while monitor.execute("query-status")["status"] == "finish-migrate":
                    monitor.wait_for_event(_SETTLE_S)
                if runs:
                    monitor.execute("cont")
        except BaseException:
            self._go_on(runs=runs)
            raise

    @contextmanager
    def _checking(
        self, monitor: qmp.QmpSession, like: condenser.Likeness, *, runs: bool
    ) -> Iterator[forgotten_pages.GuestMemory | None]:
        """The guest's memory, to be compared in the end; None if all will be sent.

        Without the right to look at it, the machine stands still from the beginning.
        """
        if not (runs and self.binary.forgets_pages and like.accelerator == _EMULATED):
            yield None
            return
        with forgotten_pages.guest_memory(monitor, self.machine.identity, like.memory_mib) as memory:
            if memory is None:
                monitor.execute("stop")
            yield memory

    def _begin(self, monitor: qmp.QmpSession, helper: condenser.RunningCondenser) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            migration.configure(monitor, pause_before_switchover=True, x_ignore_shared=False)
            migration.let_stand(monitor, _STANDS_STILL_MS)
            migration.receive(helper.monitor, theirs)
            migration.send(monitor, ours)

    def _go_on(self, *, runs: bool) -> None:
        """After a failure, whatever the machine does."""
        identity = self.machine.identity
        try:
            with qmp.session(qmp_path(self.machine.run_dir), Deadline.after(_COMMAND_TIMEOUT_S)) as monitor:
                go_on(monitor, runs=runs)
        except qmp.QmpError as error:
            if processes.is_same(identity):
                raise BangerError(
                    ErrorKind.UNAVAILABLE,
                    f"the VMM process {identity.pid} does not go on after a save that failed",
                    subject=identity.marker,
                    cause=str(error),
                ) from error

    def _monitor(self) -> AbstractContextManager[qmp.QmpSession]:
        return qmp.session(qmp_path(self.machine.run_dir), Deadline.after(_COMMAND_TIMEOUT_S), self.token)

    def _failed(self, cause: str, hint: str = "") -> BangerError:
        if not processes.is_same(self.machine.identity):
            return BangerError(
                ErrorKind.CONFLICT, "the machine cannot be saved: it ended", subject=self.machine.identity.marker
            )
        return BangerError(
            ErrorKind.UNAVAILABLE, "the machine cannot be saved", subject=self.machine.identity.marker, cause=cause,
            hint=hint,
        )  # fmt: skip


def go_on(monitor: qmp.QmpSession, *, runs: bool = True) -> None:
    """Give up any save of a machine, and let it run."""
    migration.give_up(monitor)
    if runs:
        monitor.execute("cont")


def _sizes(monitor: qmp.QmpSession) -> dict[str, int]:
    nodes = monitor.execute("query-named-block-nodes")
    return {node["node-name"]: int(node["image"]["virtual-size"]) for node in nodes}


def _wait_standing(monitor: qmp.QmpSession) -> None:
    """Until all but the last pages is copied. A machine that changes too much has to stand still for longer."""
    is_forced = False
    while (found := migration.state(monitor))["status"] in migration.COPYING:
        if not is_forced and found.get("ram", {}).get("dirty-sync-count", 0) > _MOST_PASSES:
            migration.let_stand(monitor)
            is_forced = True
        monitor.wait_for_event(_POLL_S)
    migration.expect(found, migration.STANDING)
