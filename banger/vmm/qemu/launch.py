"""Starting a QEMU process that is independent of the daemon, and waiting until its machine runs."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import VmmConfig, entering
from banger.launch import Job, Launching, Limits
from banger.vmm import identity
from banger.vmm.qemu import failures, jail, qmp
from banger.vmm.qemu.arguments import QMP_SOCKET, Binary, Handed
from banger.vmm.qemu.state_lines import MemoryFile
from banger.vmm.starting import NotRunningError, start

#: From the start of the process until the machine runs; a loaded host takes a second.
START_TIMEOUT_S = 30.0
#: What QEMU needs besides the guest's memory, in MiB: its own, and for emulation the translated code.
_OVERHEAD_MIB = {"kvm": 512, "tcg": 1536}
_STATUS_INTERVAL_S = 0.02
_CONNECT_INTERVAL_S = 0.004
#: What ``sun_path`` takes (unix(7)), with the zero byte at its end.
_LONGEST_PATH = 108


def qmp_path(run_dir: Path) -> Path:
    """Where a VM's monitor socket is."""
    return run_dir / QMP_SOCKET


@dataclass(frozen=True, slots=True)
class Program:
    """The QEMU that is started.

    Attributes:
        command_line: makes the argument list, given what QEMU inherits open.
        settle: does what is to be done before the machine is as it should be; else it is waited for until it runs.
        memory: its guest's, if that is a file.
    """

    binary: Binary
    command_line: Callable[[Handed], Sequence[str]]
    settle: Callable[[qmp.QmpSession], None] | None = None
    memory: MemoryFile | None = None


def launch(
    config: VmmConfig,
    program: Program,
    on_spawn: Callable[[ProcessIdentity], None],
    launching: Launching,
    *,
    timeout_s: float = START_TIMEOUT_S,
    token: CancelToken | None = None,
) -> ProcessIdentity:
    """Start QEMU and return once its machine runs, or is as it should be.

    Args:
        config: the machine.
        program: what is started.
        on_spawn: called as soon as the process exists.
        launching: starts the process.
        timeout_s: how long QEMU may take until the machine runs.
        token: ends the wait for it.

    Raises:
        BangerError: as :func:`banger.vmm.qemu.failures.explain` reads QEMU's own words; no process is left then.
    """

    def wait_running(spawned: ProcessIdentity) -> None:
        try:
            _settle(config.run_dir, spawned, program, Deadline.after(timeout_s), token or CancelToken())
        except qmp.QmpError as error:
            raise NotRunningError(str(error), timed_out=isinstance(error, qmp.QmpTimeoutError)) from error

    return start(
        config,
        spawn=lambda: _spawn(config, program, launching),
        wait_running=wait_running,
        explain=failures.explain,
        on_spawn=on_spawn,
    )


def _spawn(config: VmmConfig, program: Program, launching: Launching) -> int:
    path = qmp_path(config.run_dir)
    overhead_mib = _OVERHEAD_MIB.get(config.accelerator, max(_OVERHEAD_MIB.values()))
    inside = entering(config.devices)
    limits = launching.limits(config.cpus, config.memory_mib, overhead_mib)
    path.unlink(missing_ok=True)
    if config.uid:
        return launching.spawn(_confined(config, program, limits))
    if not launching.inherits:
        return launching.spawn(
            Job(config.vm_id, program.command_line(Handed()), config.vmm_log, limits, entering=inside)
        )
    with _listener(path) as listener:
        argv = program.command_line(Handed(sockets={path.name: listener.fileno()}))
        return launching.spawn(Job(config.vm_id, argv, config.vmm_log, limits, (listener.fileno(),), entering=inside))


def _confined(config: VmmConfig, program: Program, limits: Limits) -> Job:
    """QEMU in a jail, which inherits all that it works with."""
    given = jail.handed(config)
    for name in given.sockets:
        path = config.run_dir / name
        path.unlink(missing_ok=True)
        if len(os.fsencode(path)) >= _LONGEST_PATH:
            raise _no_socket(path, os.strerror(errno.ENAMETOOLONG))
    jail.give(config, program.memory)
    seen = jail.confinement(config, program.binary, given, program.memory)
    executable, *arguments = program.command_line(given)
    argv, inside = [os.path.realpath(executable), *arguments], entering(config.devices)
    return Job(config.vm_id, argv, config.vmm_log, limits, confinement=seen, entering=inside)


@contextmanager
def _listener(path: Path) -> Iterator[socket.socket]:
    """A listening socket for QEMU to inherit: a client may connect at once and need not poll for the path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise _no_socket(path, str(error)) from error
        path.chmod(0o600)
        listener.listen(1)
        yield listener


def _no_socket(path: Path, cause: str) -> BangerError:
    return BangerError(
        ErrorKind.INVALID, f'cannot make the socket "{path}"', subject=str(path), cause=cause,
        hint="set BANGER_HOME to a shorter path",
    )  # fmt: skip


def _settle(run_dir: Path, spawned: ProcessIdentity, program: Program, deadline: Deadline, token: CancelToken) -> None:
    while True:
        token.raise_if_cancelled()
        try:
            with qmp.session(qmp_path(run_dir), deadline, token) as session:
                return program.settle(session) if program.settle else _wait_running(session, deadline, token)
        except qmp.QmpConnectError as error:  # who makes its socket itself, or is in a jail, may not have come that far
            if not identity.is_same(spawned):
                raise
            if deadline.expired:
                raise qmp.QmpTimeoutError("it makes no monitor socket") from error
            token.wait(_CONNECT_INTERVAL_S)


def _wait_running(session: qmp.QmpSession, deadline: Deadline, token: CancelToken) -> None:
    while (status := session.execute("query-status")["status"]) != "running":
        if deadline.expired:
            raise qmp.QmpTimeoutError(f"the machine is {status}")
        token.wait(_STATUS_INTERVAL_S)
        token.raise_if_cancelled()
