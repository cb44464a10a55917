"""Ports published at loopback addresses, and the filter that makes them safe.

A connection from 127.0.0.1 is sent to a guest by rewriting its destination. The kernel routes it only if the bridge's
``route_localnet`` is on, and with that a guest could reach whatever listens on the host's loopback. Our rules forbid
it; but rules can be flushed by others (``systemctl restart nftables`` does), and until the next refresh nothing would
be in the way. So a second guard of another kind comes first: a traffic control filter on every tap that drops each
packet for 127.0.0.0/8 as it arrives. It lives and dies with the tap. ``route_localnet`` is on only while all taps have
it. (On the bridge it would be too late: with br_netfilter, addresses are rewritten before packets arrive there.)
"""

from __future__ import annotations

from banger.core.errors import BangerError, ErrorKind
from banger.network.sysctl import set_switch
from banger.network.tools import run_tool, try_tool

_PRIORITY = "49152"

# Classic BPF on the whole frame (linux/filter.h): half-word 12 is the type, byte 30 the first of an IPv4 destination.
# The filter's value is the verdict (direct action): 2 is TC_ACT_SHOT, -1 is TC_ACT_UNSPEC, which means go on.
_PROGRAM = (
    "40 0 0 12",  # ldh [12]
    "21 0 3 2048",  # jeq 0x0800, else to the last line
    "48 0 0 30",  # ldb [30]
    "21 0 1 127",  # jeq 127, else to the last line
    "6 0 0 2",  # ret TC_ACT_SHOT
    "6 0 0 4294967295",  # ret TC_ACT_UNSPEC
)
_BYTECODE = ",".join([str(len(_PROGRAM)), *_PROGRAM])


def route_loopback(bridge: str, *, wanted: bool) -> None:
    """Switch the routing of loopback addresses over the bridge on or off. Idempotent."""
    set_switch(f"ipv4/conf/{bridge}/route_localnet", "1" if wanted else "0")


def has_guard(tap: str) -> bool:
    """The filter is in place."""
    status, text, _ = try_tool("tc", "filter", "show", "dev", tap, "ingress")
    return not status and "direct-action" in text and _BYTECODE in text


def guard(tap: str) -> None:
    """Put the filter on a tap. Idempotent. Raises ``unavailable``."""
    if has_guard(tap):
        return
    try:
        if "clsact" not in run_tool("tc", "qdisc", "show", "dev", tap):
            run_tool("tc", "qdisc", "add", "dev", tap, "clsact")
        run_tool(
            "tc", "filter", "replace", "dev", tap, "ingress", "pref", _PRIORITY, "handle", "1", "protocol", "all",
            "bpf", "bytecode", _BYTECODE, "direct-action",
        )  # fmt: skip
    except BangerError as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            "cannot guard the host's loopback addresses against guests",
            subject=tap,
            cause=error.cause or error.message,
            hint="apt-get install iproute2; modprobe cls_bpf; or publish at another address: -p ADDRESS:HOST:GUEST",
        ) from error
