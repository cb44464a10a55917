"""Kernel settings (sysctl): forwarding on the host, and the behaviour of our bridge and taps.

What is switched on for the whole host is written down first, so that ``banger doctor`` can tell who did it. It is not
switched off again: by then others may count on it.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.posix.files import text_or_empty

_ROOT = Path("/proc/sys/net")
_IPV4, _IPV6 = "ipv4/ip_forward", "ipv6/conf/all/forwarding"

#: Documentation/networking/ip-sysctl.rst of the kernel. Strict source checks hold also while our rules are flushed.
_BRIDGE = {
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/arp_ignore": "1",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv4/conf/{}/send_redirects": "0",
    "ipv4/conf/{}/accept_source_route": "0",
    "ipv4/conf/{}/forwarding": "1",
    "ipv6/conf/{}/accept_ra": "0",
    "ipv6/conf/{}/autoconf": "0",
    "ipv6/conf/{}/accept_redirects": "0",
}


def read_switch(name: str) -> str:
    """The value of a switch, such as ``ipv4/ip_forward``; empty if this kernel does not have it."""
    return text_or_empty(_ROOT / name).strip()


def set_switch(name: str, value: str) -> None:
    """Set a switch unless it has that value or does not exist. Raises ``denied`` or ``unavailable``."""
    if read_switch(name) in (value, ""):
        return
    try:
        (_ROOT / name).write_text(value)
    except OSError as error:
        kind = ErrorKind.DENIED if isinstance(error, PermissionError) else ErrorKind.UNAVAILABLE
        hint = f"sysctl -w net.{name.replace('/', '.')}={value}"
        raise BangerError(kind, f'cannot set "net/{name}"', subject=name, cause=str(error), hint=hint) from error


def has_ipv6() -> bool:
    """This kernel has IPv6 and it is not switched off for new interfaces."""
    return read_switch("ipv6/conf/default/disable_ipv6") == "0"


def enable_forwarding(state_file: Path, *, ipv6: bool) -> None:
    """Make this host a router, and write down what that changed."""
    wanted = {_IPV4: "1"}
    if ipv6 and read_switch(_IPV6) == "0":
        # A router ignores router advertisements unless told otherwise; this host may live by them.
        listening = [path.name for path in (_ROOT / "ipv6/conf").iterdir() if path.name not in ("all", "lo")]
        for name in (f"ipv6/conf/{interface}/accept_ra" for interface in listening):
            if read_switch(name) == "1":
                wanted[name] = "2"
        wanted[_IPV6] = "1"
    missing = {name: value for name, value in wanted.items() if read_switch(name) not in (value, "")}
    if not missing:
        return
    _write(state_file, sorted({*switched_on(state_file), *missing}))
    for name, value in missing.items():
        set_switch(name, value)


def route_packets(*, ipv6: bool) -> None:
    """Make a router of a namespace that is all ours: nothing is to be remembered."""
    set_switch(_IPV4, "1")
    if ipv6:
        set_switch(_IPV6, "1")


def switched_on(state_file: Path) -> list[str]:
    """What banger changed for the whole host, as :func:`read_switch` names it."""
    try:
        names = json.loads(state_file.read_text(encoding="utf-8"))["switched_on"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def tame_bridge(bridge: str) -> None:
    """No redirects, no router advertisements, no answers for addresses of other interfaces."""
    for name, value in _BRIDGE.items():
        set_switch(name.format(bridge), value)


def tame_tap(tap: str) -> None:
    """The host has no address on a tap, not even a link-local one."""
    set_switch(f"ipv6/conf/{tap}/disable_ipv6", "1")


def _write(state_file: Path, names: list[str]) -> None:
    """Durably: written to the disk before the kernel is told."""
    state_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=state_file.parent, prefix=".network-", delete=False
    ) as file:
        try:
            json.dump({"switched_on": names}, file)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(state_file)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
