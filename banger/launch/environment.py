"""What systemd tells a process by its environment (systemd.exec(5), environment variables in spawned processes)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: A directory that is there if systemd is the init (sd_booted(3)).
BOOTED = Path("/run/systemd/system")


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
