"""``pasta``, which connects the namespaces to the world through sockets of the host: passt(1).

Options are those of Debian 12's version (2023-03-09), which later ones have as well.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

from banger.core.models import ProcessIdentity
from banger.launch.environment import vmm_environment
from banger.vmm import identity as processes

#: What the way out is called in the namespace.
UPLINK = "uplink0"
_TIMEOUT_S = 10.0
_POLL_S = 0.005
#: It also writes to the system's log, and tells when it cannot.
_NOISE = "syslog"
#: Its words, and what helps: that a profile of AppArmor's or SELinux forbids it what it does is the commonest.
_REMEDIES = (
    ("tun socket", "ls -l /dev/net/tun"),
    ("external interface", "ip route: this host has no default route"),
    ("denied", "dmesg | grep -i denied: AppArmor or SELinux may keep pasta from it"),
    ("not permitted", "dmesg | grep -i denied: AppArmor or SELinux may keep pasta from it"),
    ("option", "update passt: 2023-03 or newer"),
)


def marker_of(installation_id: str) -> str:
    """The name that it is started by; it must have ``pasta`` in it, by which the program knows what to be."""
    return f"banger-pasta-{installation_id}"


def find_uplink(installation_id: str) -> ProcessIdentity | None:
    """The one that runs."""
    return processes.find(marker_of(installation_id))


def command_line(marker: str, holder_pid: int, *, is_root: bool) -> list[str]:
    """Its arguments. Pure.

    Nothing of the host is offered in the namespace: no address stands for its loopback (``--no-map-gw``), and no port
    of either is open at the other, which is what it does by itself. It writes no file: where distributions confine it
    (AppArmor), it may not write everywhere.
    """
    return [
        marker,
        "--foreground",
        "--no-netns-quit",  # as long as a VM is in there, whatever becomes of the holder
        *_options(is_root=is_root),
        "--userns", f"/proc/{holder_pid}/ns/user",
        "--netns", f"/proc/{holder_pid}/ns/net",
    ]  # fmt: skip


def _options(*, is_root: bool) -> list[str]:
    return [
        "--config-net",
        "--no-map-gw",
        "--tcp-ports", "none",
        "--udp-ports", "none",
        "--tcp-ns", "none",
        "--udp-ns", "none",
        "--ns-ifname", UPLINK,
        # It would become nobody, who may not enter root's namespaces. It gives up root's rights all the same.
        *(("--runas", "0") if is_root else ()),
    ]  # fmt: skip


def try_uplink(program: str, *, is_root: bool) -> str:
    """Why it does not start here, in namespaces of its own that end at once; empty if it does."""
    argv = [program, *_options(is_root=is_root), "--", "/bin/true"]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_TIMEOUT_S,
            check=False, cwd="/", env=vmm_environment(os.environ), start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (_words(done.stdout) or f"it ended with status {done.returncode}") if done.returncode else ""


def remedy_of(why: str) -> str:
    """What to look at, by the words that ``pasta`` failed with."""
    for sign, remedy in _REMEDIES:
        if sign in why.lower():
            return remedy
    return "pasta --config-net -- true"


def start_uplink(program: str, argv: Sequence[str], is_there: Callable[[], bool]) -> tuple[ProcessIdentity | None, str]:
    """Start it and wait until the way out is there. What runs, and else why nothing does."""
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                argv,
                executable=program,
                stdin=subprocess.DEVNULL,  # with a terminal, it goes to the background
                stdout=said,
                stderr=said,
                cwd="/",
                env=vmm_environment(os.environ),
                start_new_session=True,
            )
        except OSError as error:
            return None, f"{program}: {error.strerror}"
        deadline = time.monotonic() + _TIMEOUT_S
        while not is_there():
            ended = child.poll() is not None
            if ended or time.monotonic() > deadline:
                child.kill()
                child.wait()
                said.seek(0)
                why = _words(said.read()) or (
                    f"it ended with status {child.returncode}" if ended else "it takes too long"
                )
                return None, why
            time.sleep(_POLL_S)
    child.returncode = 0  # reaped by its identity, and not behind our back
    return processes.identify(child.pid, argv[0]), ""


def _words(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if _NOISE not in line]
    return " ".join(filter(None, lines[-3:]))
