"""Starting a QEMU process that owes nothing to the daemon: own session, logs in files, no pipe, no parent tie."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import VmmConfig
from banger.vmm import identity
from banger.vmm.qemu import failures, qmp

#: From the start of the process until the machine runs; a loaded host takes a second.
START_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 10.0
_STATUS_INTERVAL_S = 0.02


def qmp_path(run_dir: Path) -> Path:
    """Where a VM's monitor socket is."""
    return run_dir / "qmp.sock"


def launch(
    config: VmmConfig,
    command_line: Callable[[int], Sequence[str]],
    on_spawn: Callable[[ProcessIdentity], None],
    timeout_s: float = START_TIMEOUT_S,
) -> ProcessIdentity:
    """Start QEMU and return once its machine runs.

    Args:
        config: the machine.
        command_line: makes the argument list, given the number of the monitor's inherited listening socket.
        on_spawn: called as soon as the process exists.
        timeout_s: how long QEMU may take until the machine runs.

    Raises:
        BangerError: as :func:`banger.vmm.qemu.failures.explain` reads QEMU's own words; no process is left then.
    """
    log_start = _size(config.vmm_log)
    with _listener(qmp_path(config.run_dir)) as listener:
        argv = command_line(listener.fileno())
        process = _spawn(argv, listener.fileno(), config.vmm_log)
    spawned = identity.identify(process, vmm_marker(config.vm_id))
    try:
        on_spawn(spawned)
        _wait_running(config.run_dir, Deadline.after(timeout_s))
    except qmp.QmpError as error:
        timed_out = isinstance(error, qmp.QmpTimeoutError)
        _end(spawned)
        raise failures.explain(config, _text_since(config.vmm_log, log_start), error, timed_out=timed_out) from error
    except BaseException:
        _end(spawned)
        raise
    return spawned


def _spawn(argv: Sequence[str], qmp_fd: int, log: Path) -> int:
    log.touch(mode=0o600)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                umask=0o077,
                start_new_session=True,
                pass_fds=(qmp_fd,),
            )
        except OSError as error:
            raise failures.cannot_execute(argv[0], error) from error
    # From here the process belongs to its identity. Popen would reap it behind our back, and lose its exit status,
    # whenever another process is started, unless it believes the process to be gone.
    process.returncode = 0
    return process.pid


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


def _wait_running(run_dir: Path, deadline: Deadline) -> None:
    with qmp.session(qmp_path(run_dir), deadline) as session:
        while (status := session.execute("query-status")["status"]) != "running":
            if deadline.expired:
                raise qmp.QmpTimeoutError(f"the machine is {status}")
            time.sleep(_STATUS_INTERVAL_S)


def _end(spawned: ProcessIdentity) -> None:
    identity.kill(spawned)
    identity.wait_gone(spawned, _KILL_TIMEOUT_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _text_since(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")
