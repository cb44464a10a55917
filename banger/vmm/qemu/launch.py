"""Starting a QEMU process that is independent of the daemon, and waiting until its machine runs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import VmmConfig
from banger.launch import Job, Launching
from banger.vmm import identity
from banger.vmm.qemu import failures, qmp
from banger.vmm.qemu.arguments import options
from banger.vmm.starting import NotRunningError, start

#: From the start of the process until the machine runs; a loaded host takes a second.
START_TIMEOUT_S = 30.0
#: What QEMU needs besides the guest's memory, in MiB: its own, and for emulation the translated code.
_OVERHEAD_MIB = {"kvm": 512, "tcg": 1536}
_STATUS_INTERVAL_S = 0.02
#: Stands for the monitor's socket in a command line until its path takes its place.
_NO_SOCKET = -1


def qmp_path(run_dir: Path) -> Path:
    """Where a VM's monitor socket is."""
    return run_dir / "qmp.sock"


def launch(
    config: VmmConfig,
    command_line: Callable[[int], Sequence[str]],
    on_spawn: Callable[[ProcessIdentity], None],
    launching: Launching,
    timeout_s: float = START_TIMEOUT_S,
    token: CancelToken | None = None,
) -> ProcessIdentity:
    """Start QEMU and return once its machine runs.

    Args:
        config: the machine.
        command_line: makes the argument list, given the number of the monitor's inherited listening socket.
        on_spawn: called as soon as the process exists.
        launching: starts the process.
        timeout_s: how long QEMU may take until the machine runs.
        token: ends the wait for it.

    Raises:
        BangerError: as :func:`banger.vmm.qemu.failures.explain` reads QEMU's own words; no process is left then.
    """

    def wait_running(spawned: ProcessIdentity) -> None:
        try:
            _wait_running(config.run_dir, spawned, Deadline.after(timeout_s), token or CancelToken())
        except qmp.QmpError as error:
            raise NotRunningError(str(error), timed_out=isinstance(error, qmp.QmpTimeoutError)) from error

    return start(
        config,
        spawn=lambda: _spawn(config, command_line, launching),
        wait_running=wait_running,
        explain=failures.explain,
        on_spawn=on_spawn,
    )


def _spawn(config: VmmConfig, command_line: Callable[[int], Sequence[str]], launching: Launching) -> int:
    path = qmp_path(config.run_dir)
    overhead_mib = _OVERHEAD_MIB.get(config.accelerator, max(_OVERHEAD_MIB.values()))
    limits = launching.limits(config.cpus, config.memory_mib, overhead_mib)
    if not launching.inherits:
        path.unlink(missing_ok=True)
        own = listening_at(path, command_line(_NO_SOCKET), _NO_SOCKET)
        return launching.spawn(Job(config.vm_id, own, config.vmm_log, limits))
    with _listener(path) as listener:
        argv = command_line(listener.fileno())
        return launching.spawn(Job(config.vm_id, argv, config.vmm_log, limits, (listener.fileno(),)))


def listening_at(path: Path, argv: Sequence[str], descriptor: int) -> list[str]:
    """The same command line, but QEMU makes the monitor's socket itself instead of inheriting ``descriptor``."""
    inherited = options("socket", id="qmp", fd=descriptor, server="on", wait="off")
    own = options("socket", id="qmp", path=path, server="on", wait="off")
    assert inherited in argv, "the command line has no monitor"
    return [own if word == inherited else word for word in argv]


@contextmanager
def _listener(path: Path) -> Iterator[socket.socket]:
    """A listening socket for QEMU to inherit: a client may connect at once and need not poll for the path."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            listener.bind(str(path))
        except OSError as error:
            raise BangerError(
                ErrorKind.INVALID,
                f'cannot make the socket "{path}"',
                subject=str(path),
                cause=str(error),
                hint="set BANGER_HOME to a shorter path",
            ) from error
        path.chmod(0o600)
        listener.listen(1)
        yield listener


def _wait_running(run_dir: Path, spawned: ProcessIdentity, deadline: Deadline, token: CancelToken) -> None:
    while True:
        token.raise_if_cancelled()
        try:
            with qmp.session(qmp_path(run_dir), deadline, token) as session:
                while (status := session.execute("query-status")["status"]) != "running":
                    if deadline.expired:
                        raise qmp.QmpTimeoutError(f"the machine is {status}")
                    token.wait(_STATUS_INTERVAL_S)
                    token.raise_if_cancelled()
                return
        except qmp.QmpConnectError as error:  # a QEMU that makes its socket itself has not come that far
            if not identity.is_same(spawned):
                raise
            if deadline.expired:
                raise qmp.QmpTimeoutError("it makes no monitor socket") from error
            token.wait(_STATUS_INTERVAL_S)
