"""The QEMU that saves a machine: like it in everything, it takes over its state, and never runs.

Its memory is the file that is saved. What is left then, less than a megabyte, it sends to us (the capability
``x-ignore-shared``, of QEMU 4.0 and later, leaves out memory that is a shared file).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.models import ProcessIdentity
from banger.core.names import saver_marker
from banger.launch import Job, Launching
from banger.posix.programs import find_program, require_program
from banger.vmm import handing
from banger.vmm import identity as processes
from banger.vmm.qemu import jail, migration, qmp
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.state_lines import Condenser, condenser_line, memory_mib
from banger.vmm.qemu.words import first, options_of
from banger.vmm.saved_files import SavedFiles
from banger.vmm.waiting import abandoned_with

_START_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 10.0
_PIECE_BYTES = 1 << 20
#: In a network namespace of its own: no name is taken there.
_TAP = {"ifname": "saved", "script": "no", "downscript": "no"}


@dataclass(frozen=True, slots=True)
class Likeness:
    """What the machine is that shall be saved.

    Attributes:
        argv: its command line.
        uid: its user's, if it is in a jail; the helper is then, too. 0 if it is not.
        sizes: of its disks, in bytes, by node.
    """

    vm_id: str
    argv: Sequence[str]
    uid: int
    sizes: Mapping[str, int]

    @property
    def accelerator(self) -> str:
        """What it runs on."""
        return first(options_of(self.argv), "-accel").kind

    @property
    def memory_mib(self) -> int:
        """Of its guest."""
        return memory_mib(self.argv)


@dataclass(frozen=True, slots=True)
class Starter:
    """The QEMU that is started, and what starts it."""

    binary: Binary
    launching: Launching


@dataclass(frozen=True, slots=True)
class RunningCondenser:
    """One that waits for a machine's state."""

    identity: ProcessIdentity
    monitor: qmp.QmpSession

    def devices(self, timeout_s: float, token: CancelToken | None) -> bytes:
        """All that it has taken over but memory; it waits until it has."""
        self.monitor.allow(timeout_s)
        migration.wait_received(self.monitor)
        migration.configure(self.monitor, x_ignore_shared=True)
        ours, theirs = socket.socketpair()
        with ours, abandoned_with(ours, token):
            with theirs:
                migration.send(self.monitor, theirs)
            ours.settimeout(timeout_s)
            try:
                data = b"".join(iter(lambda: ours.recv(_PIECE_BYTES), b""))
            except OSError as error:
                raise qmp.QmpError(f"its state does not come: {error}") from error
        migration.wait_sent(self.monitor)
        return data

    def check_devices(self) -> None:
        """Raise :class:`QmpError` for a device that it took over and gave up, as it found its rings out of step.

        Saved like that, it would do nothing in any machine that goes on from there. Older releases than 7.2 do not
        tell.
        """
        try:
            devices = self.monitor.execute("x-query-virtio")
        except qmp.QmpError:
            return
        for one in devices:
            if self.monitor.execute("x-query-virtio-status", {"path": one["path"]})["broken"]:
                raise qmp.QmpError(f"the rings of its device {one['name']} were copied at different moments; try again")


@contextmanager
def started(
    like: Likeness,
    files: SavedFiles,
    starter: Starter,
    on_spawn: Callable[[ProcessIdentity], None],
    token: CancelToken | None,
) -> Iterator[RunningCondenser]:
    """Start it, and end it when the block ends, in whatever way."""
    ours, theirs = socket.socketpair()
    marker = saver_marker(like.vm_id)
    with ours:
        with theirs:
            job = (
                _jailed(like, files, starter.binary, theirs.fileno())
                if like.uid
                else _free(like, files, theirs.fileno())
            )
            identity = processes.identify(starter.launching.spawn_helper(job), marker)
        try:
            on_spawn(identity)
            with qmp.session_over(ours, Deadline.after(_START_TIMEOUT_S), token) as monitor:
                migration.configure(monitor, pause_before_switchover=False, x_ignore_shared=False)
                yield RunningCondenser(identity, monitor)
        finally:
            processes.kill(identity)
            processes.wait_gone(identity, _KILL_TIMEOUT_S)


def _free(like: Likeness, files: SavedFiles, monitor: int) -> Job:
    """With the rights of our own user."""
    own = Condenser(saver_marker(like.vm_id), files.memory, monitor, like.sizes, _TAP)
    argv = condenser_line(like.argv, own)
    entering = (*_apart(argv), *_ending_with_us())
    return Job(like.vm_id, argv, files.log, descriptors=(monitor,), entering=entering)


def _jailed(like: Likeness, files: SavedFiles, binary: Binary, monitor: int) -> Job:
    """As the user of the machine's own VMM, who has all that goes there anyway."""
    options = options_of(like.argv)
    tap = monitor + 1
    own = Condenser(saver_marker(like.vm_id), files.memory, monitor, like.sizes, {"fd": tap})
    handing.give(files.memory, like.uid)
    kernel = Path(first(options, "-kernel").value or "")
    seen = jail.of_condenser(binary, kernel, like.accelerator, files, jail.OfCondenser(like.uid, monitor, tap))
    program, *arguments = condenser_line(like.argv, own)
    argv = [os.path.realpath(program), *arguments]
    return Job(like.vm_id, argv, files.log, descriptors=(monitor,), confinement=seen)


def ran_out_of_room(identity: ProcessIdentity) -> bool:
    """True for one that ended because a page of its memory found no room in the file (mmap(2), SIGBUS)."""
    return processes.exit_status(identity) == -signal.SIGBUS


def _apart(argv: Sequence[str]) -> tuple[str, ...]:
    """The command for a network namespace of its own, where there is to be a tap: nobody sees that one."""
    if not any(word.startswith("tap,") for word in argv):
        return ()
    own = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return (require_program("unshare"), *own, "--net", "--")


def _ending_with_us() -> tuple[str, ...]:
    """The command for ending with the thread that starts it (PR_SET_PDEATHSIG): a daemon that is killed leaves none."""
    program = find_program("setpriv")
    return (program, "--pdeathsig", "KILL", "--") if program else ()
