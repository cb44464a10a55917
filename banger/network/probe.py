"""Whether this process can create taps."""

from __future__ import annotations

import os
from pathlib import Path

from banger.posix.files import text_or_empty
from banger.posix.programs import find_program, not_installed

_TUN = Path("/dev/net/tun")
_CAP_NET_ADMIN = 12  # linux/capability.h


def available() -> tuple[bool, str]:
    """Can it, and if not, why not and what to type."""
    if not has_net_admin(text_or_empty(Path("/proc/thread-self/status"))):
        return False, "needs root or CAP_NET_ADMIN: run the daemon as root, or use --network user"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return False, f"{_TUN} cannot be opened: modprobe tun"
    for name in ("nft", "tc"):
        if find_program(name) is None:
            return False, f"{name} is not installed: {not_installed(name).hint}"
    return True, ""


def has_net_admin(status: str) -> bool:
    """Read the effective capabilities of ``/proc/PID/status`` (proc(5))."""
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return bool(int(lines.get("CapEff", "0").strip(), 16) >> _CAP_NET_ADMIN & 1)
