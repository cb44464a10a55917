"""The environment of processes that we start.

systemd's part: systemd.exec(5), environment variables in spawned processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: A directory that is there if systemd is the init (sd_booted(3)).
BOOTED = Path("/run/systemd/system")


#: All that a VMM needs to find its libraries, its own programs and a place for temporary files.
_OF_A_VMM = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR")


def vmm_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What a VMM inherits: nothing that its daemon, or whoever started that one, was told. Pure.

    A VMM outlives its daemon, and its environment can be read in ``/proc`` by everybody who has its uid.
    """
    return {name: env[name] for name in _OF_A_VMM if name in env}


def inheritable(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without what systemd meant for the daemon alone. Pure."""
    own = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "INVOCATION_ID", "SYSTEMD_EXEC_PID", "JOURNAL_STREAM")
    return {name: value for name, value in env.items() if name not in own}


def is_supervised(env: Mapping[str, str], pid: int, booted: Path = BOOTED) -> bool:
    """True if systemd started this very process as a service (systemd.exec(5), environment of spawned processes).

    What a terminal's service has put into the environment of everything below it does not count.
    """
    if not booted.is_dir() or not env.get("INVOCATION_ID"):
        return False
    executed = env.get("SYSTEMD_EXEC_PID", "")
    return executed == str(pid) if executed else "NOTIFY_SOCKET" in env
