"""Identifying our processes: PIDs are reused, and a VMM outlives the daemon that started it.

A process is the one we mean if the host has not rebooted since (boot id), if the pid's process began at the same
clock tick (``/proc/PID/stat`` field 22, proc(5)) and if its command line holds our marker. It is only ever signalled
through a pidfd that was opened first and checked afterwards, so that the pid can't change hands in between.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import OrderedDict
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from banger.core.cancel import CancelToken, Deadline
from banger.core.models import ProcessIdentity

#: The empty identity: a process that was never started.
NO_PROCESS = ProcessIdentity(0, 0, "", "")

_REMEMBERED_STATUSES = 256
_PIECE_BYTES = 16 << 10
#: How soon a wait for an exit hears that it is wanted no more, in seconds.
_CANCEL_POLL_S = 0.05
_STOP_POLL_S = 0.005
_statuses: OrderedDict[ProcessIdentity, int] = OrderedDict()
_statuses_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """The fields of ``/proc/PID/stat`` that tell processes apart (proc(5) fields 3, 6, 20 and 22)."""

    state: str
    session: int
    threads: int
    start_ticks: int

    @property
    def gone(self) -> bool:
        """True if nothing runs any more; a zombie leader whose other threads still run does not count."""
        return self.state in "ZXx" and self.threads <= 1


@cache
def current_boot_id() -> str:
    """The kernel's random id of this boot. It outlives every process, this one too."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def parse_stat(text: str) -> ProcessStat:
    """Read the text of ``/proc/PID/stat``; the command name in it may hold spaces and parentheses."""
    fields = text[text.rindex(")") + 1 :].split()
    return ProcessStat(state=fields[0], session=int(fields[3]), threads=int(fields[17]), start_ticks=int(fields[19]))


def identify(pid: int, marker: str) -> ProcessIdentity:
    """The identity of a process that was just started and is not reaped yet; ``ProcessLookupError`` without one."""
    stat = _read_stat(pid)
    if stat is None:
        raise ProcessLookupError(f"no process {pid}")
    return ProcessIdentity(pid, stat.start_ticks, current_boot_id(), marker)


def find(marker: str, users: Container[int] = ()) -> ProcessIdentity | None:
    """The process that was started with ``marker`` but whose identity was never written down, if it lives.

    Only a session leader of this user, or of one of ``users``, with an argument that begins with the marker counts:
    somebody who merely mentions the marker (a ``grep``, an editor) is not taken for it.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        stat = _read_stat(pid)
        if stat is None or stat.gone or stat.session != pid:
            continue
        arguments = _read_cmdline(pid).split(b"\0")
        if any(argument.startswith(marker.encode()) for argument in arguments) and _is_ours(entry, users):
            return ProcessIdentity(pid, stat.start_ticks, current_boot_id(), marker)
    return None


def of_this_boot(identity: ProcessIdentity) -> bool:
    """False if the host has rebooted since the process was started."""
    return identity.boot_id == current_boot_id()


def is_same(identity: ProcessIdentity) -> bool:
    """True if this very process lives; a zombie does not."""
    if not identity.known or not of_this_boot(identity):
        return False
    stat = _read_stat(identity.pid)
    if stat is None or stat.gone or stat.start_ticks != identity.start_ticks:
        return False
    cmdline = _read_cmdline(identity.pid)
    # A process in the middle of exec has no command line yet; one that is being torn down has none any more, but may
    # still hold its files open. The start time alone speaks for both.
    return not cmdline or identity.marker.encode() in cmdline


def open_pidfd(identity: ProcessIdentity) -> int | None:
    """A pidfd of this very process, or ``None`` if it is gone. The caller closes it."""
    if not identity.known:
        return None
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    if is_same(identity):
        return pidfd
    os.close(pidfd)
    return None


def kill(identity: ProcessIdentity, signal_number: int = signal.SIGKILL) -> bool:
    """Signal this very process and no other; False if it is gone. Does not wait."""
    with _pidfd(identity) as pidfd:
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, signal_number)
        except ProcessLookupError:
            return False
        return True


def is_being_executed(identity: ProcessIdentity) -> bool:
    """True if a process lives that has just been started, and does not bear its marker yet."""
    stat = _read_stat(identity.pid)
    lives = stat is not None and not stat.gone and stat.start_ticks == identity.start_ticks
    return lives and identity.marker.encode() not in _read_cmdline(identity.pid)


def is_stopped(identity: ProcessIdentity) -> bool:
    """True if this very process stands still by a signal."""
    stat = _read_stat(identity.pid) if is_same(identity) else None
    return stat is not None and stat.state == "T"


def stop(identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
    """Have this very process stand still by a signal, until ``SIGCONT``; False if it does not in time, or is gone."""
    deadline, token = Deadline.after(timeout_s), token or CancelToken()
    if not kill(identity, signal.SIGSTOP):
        return False
    while not is_stopped(identity):
        token.raise_if_cancelled()
        if deadline.expired or not is_same(identity):
            return False
        token.wait(_STOP_POLL_S)
    return True


def wait_gone(identity: ProcessIdentity, timeout_s: float, token: CancelToken | None = None) -> bool:
    """Wait until this very process is gone, and reap it if it is our child; False on timeout, and when cancelled."""
    with _pidfd(identity) as pidfd:
        if pidfd is None:
            _reap_zombie(identity)
            return True
        if not _has_exited_before(pidfd, Deadline.after(timeout_s), token or CancelToken()):
            return False
        reap(pidfd, identity)
        return True


def _has_exited_before(pidfd: int, deadline: Deadline, token: CancelToken) -> bool:
    """As :func:`has_exited`, but soon an answer once ``token`` is cancelled."""
    while not has_exited(pidfd, deadline.at_most(_CANCEL_POLL_S)):
        if token.cancelled or deadline.expired:
            return False
    return True


def has_exited(pidfd: int, timeout_s: float = 0.0) -> bool:
    """True once every thread of the process behind ``pidfd`` has ended, within ``timeout_s`` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def reap(pidfd: int, identity: ProcessIdentity) -> int | None:
    """Take the exit status of an exited process, as :func:`exit_status` gives it."""
    with _statuses_lock:
        try:
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            result = None
        if result is not None:
            status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
            _statuses[identity] = status
            while len(_statuses) > _REMEMBERED_STATUSES:
                _statuses.popitem(last=False)
        return _statuses.get(identity)


def exit_status(identity: ProcessIdentity) -> int | None:
    """Exit code, or minus the signal number, of a process that was our child and has been reaped; else ``None``.

    The kernel gives a status out once; whoever asks second finds it here.
    """
    with _statuses_lock:
        return _statuses.get(identity)


@contextmanager
def _pidfd(identity: ProcessIdentity) -> Iterator[int | None]:
    pidfd = open_pidfd(identity)
    try:
        yield pidfd
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _reap_zombie(identity: ProcessIdentity) -> None:
    """Reap the process if it is a dead child of ours: a zombie counts as gone but keeps its pid."""
    stat = _read_stat(identity.pid) if identity.known and of_this_boot(identity) else None
    if stat is None or not stat.gone or stat.start_ticks != identity.start_ticks:
        return
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        reap(pidfd, identity)
    finally:
        os.close(pidfd)


def _is_ours(entry: Path, users: Container[int]) -> bool:
    try:
        owner = entry.stat().st_uid
        return owner == os.geteuid() or owner in users
    except (FileNotFoundError, ProcessLookupError):
        return False


def _read_stat(pid: int) -> ProcessStat | None:
    text = _read(f"/proc/{pid}/stat")
    return parse_stat(text.decode(errors="replace")) if text else None


def _read_cmdline(pid: int) -> bytes:
    return _read(f"/proc/{pid}/cmdline")


def _read(path: str) -> bytes:
    """A file of a process, or nothing if that is gone. A thousand are read at a start: by as few calls as can be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b""
            while piece := os.read(descriptor, _PIECE_BYTES):
                data += piece
            return data
        finally:
            os.close(descriptor)
    except (FileNotFoundError, ProcessLookupError):
        return b""
