"""The process that holds the namespaces of an installation: a ``cat`` that reads a pipe which nobody writes to.

It holds both ends of the pipe itself, so that nothing but a signal ends it, and needs no memory to speak of.
"""

from __future__ import annotations

import os
import select
import subprocess
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.launch.environment import vmm_environment
from banger.posix.files import text_or_empty
from banger.posix.programs import require_program
from banger.vmm import identity as processes

#: Says that it is in its namespaces, and becomes ``cat``: a minus, then words that only tell people whose it is.
_SCRIPT = 'echo in && exec cat - "$0" "$@" >/dev/null 2>&1'
_TIMEOUT_S = 10.0
_NAMESPACES = ("user", "net")


def marker_of(installation_id: str) -> str:
    """What its command line holds."""
    return f"banger-net-{installation_id}"


def find_holder(installation_id: str) -> ProcessIdentity | None:
    """The holder that runs; a process of that marker that is in no namespaces of its own is none."""
    found = processes.find(marker_of(installation_id))
    return found if found is not None and _is_apart(found.pid) else None


def start_holder(installation_id: str, run_dir: Path) -> ProcessIdentity:
    """Make the namespaces, and return once they are there. ``run_dir`` tells people whose they are.

    Raises:
        BangerError: ``unavailable`` if this user may make none.
    """
    marker = marker_of(installation_id)
    argv = [
        require_program("unshare"), "--user", "--map-root-user", "--net", "--",
        "/bin/sh", "-c", _SCRIPT, marker, str(run_dir),
    ]  # fmt: skip
    try:
        reading, writing = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise _cannot(marker, error.strerror or str(error)) from error
    try:
        child = subprocess.Popen(
            argv,
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=vmm_environment(os.environ),
            start_new_session=True,
            pass_fds=(writing,),
        )
    except OSError as error:
        raise _cannot(marker, error.strerror or str(error)) from error
    finally:
        os.close(reading)
        os.close(writing)
    assert child.stdout is not None
    with child.stdout as said:
        ready, _, _ = select.select([said], [], [], _TIMEOUT_S)
        words = os.read(said.fileno(), 1000).decode(errors="replace") if ready else "it says nothing"
    if words.strip() != "in":
        child.kill()
        child.wait()
        raise _cannot(marker, words.strip())
    child.returncode = 0  # reaped by its identity, and not behind our back
    return processes.identify(child.pid, marker)


def _is_apart(pid: int) -> bool:
    """It is in other namespaces than we are."""
    try:
        return all(
            Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
            for kind in _NAMESPACES
        )
    except OSError:
        return False


def _cannot(marker: str, cause: str) -> BangerError:
    return BangerError(
        ErrorKind.UNAVAILABLE, "cannot make a network namespace", subject=marker, cause=cause, hint=remedy(),
    )  # fmt: skip


def remedy() -> str:
    """What keeps users from making user namespaces, on the distributions that do."""
    for key, bad, good in (
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "10000"),
    ):
        if text_or_empty(Path("/proc/sys", key.replace(".", "/"))).strip() == bad:
            return f"sysctl -w {key}={good}"
    return "banger doctor"
