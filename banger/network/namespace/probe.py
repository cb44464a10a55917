"""Whether this user can have a namespace with an uplink, and what to type if not."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from banger.core.errors import BangerError
from banger.network.namespace.entering import Entry
from banger.network.namespace.holder import remedy
from banger.network.namespace.uplink import remedy_of, try_uplink
from banger.posix.programs import find_program, not_installed, require_program

PROGRAM = "pasta"
_PROGRAMS = (PROGRAM, "unshare", "nsenter", "setpriv", "nft", "tc")
_TUN = Path("/dev/net/tun")
_TIMEOUT_S = 10.0
#: How long a no holds, in seconds: a start asks several times.
_NO_HOLDS_S = 5.0
_found: list[tuple[float, str]] = []


def obstacle() -> str:
    """Why not, with the remedy; empty if it can. A yes is final: it is not asked for every VM."""
    if _found and (not _found[0][1] or time.monotonic() - _found[0][0] < _NO_HOLDS_S):
        return _found[0][1]
    _found[:] = [(time.monotonic(), look())]
    return _found[0][1]


def look() -> str:
    """As :func:`obstacle`, now."""
    for name in _PROGRAMS:
        if find_program(name) is None:
            return f"{name} is not installed: {not_installed(name).hint}"
    if not _TUN.exists():
        return f"{_TUN} is not there: modprobe tun"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} cannot be opened by this user: chmod 0666 {_TUN}"
    try:
        words = [require_program("unshare"), "--user", "--map-root-user", "--net", "--", "/bin/true"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired, BangerError) as error:
        return f"no user namespace can be made: {error}"
    return f"no user namespace can be made ({done.stderr.strip()}): {remedy()}" if done.returncode else ""


def failure() -> tuple[str, str] | None:
    """Why the way out does not work although all that it takes is there, and what to look at. It is tried for that."""
    why = try_uplink(require_program(PROGRAM), is_root=os.geteuid() == 0)
    return (why, remedy_of(why)) if why else None


def entry() -> Entry:
    """How this user enters the namespaces. Raises ``unavailable``."""
    return Entry(require_program("nsenter"), require_program("setpriv"), os.geteuid() == 0)
