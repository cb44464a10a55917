"""Running a piece of a test in a network namespace of its own, where it may have any address."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
#: What a kernel starts with. A new namespace has the IPv4 settings of the host's instead, which may forward or filter.
_SETTINGS = {
    "ipv4/ip_forward": "0",
    "ipv4/ip_unprivileged_port_start": "1024",
    "ipv4/ip_local_port_range": "32768 60999",
    "ipv4/icmp_echo_ignore_all": "0",
    **{
        f"ipv4/conf/{which}/{name}": "0"
        for which in ("all", "default")
        for name in "forwarding rp_filter arp_ignore arp_announce arp_filter proxy_arp route_localnet accept_local src_valid_mark".split()
    },
    **{
        f"ipv6/conf/{which}/{name}": value
        for which in ("all", "default", "lo")
        for name, value in {"disable_ipv6": "0", "forwarding": "0", "accept_ra": "1", "autoconf": "1"}.items()
    },
    **{f"ipv6/conf/default/{name}": value for name, value in {"addr_gen_mode": "0", "use_tempaddr": "0"}.items()},
}
T = TypeVar("T")


def why_no_namespace() -> str:
    """The reason to skip, or an empty string."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "iproute2 or util-linux is not installed"
    probe = subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "needs root: a network namespace"


def settle_namespace() -> None:
    """Give the namespace of this thread the settings of a fresh kernel, whatever the host's are."""
    for name, value in _SETTINGS.items():
        file = Path("/proc/sys/net", name)
        if file.exists():  # without IPv6, and on older kernels, some are missing
            file.write_text(value, encoding="utf-8")


def in_network_namespace(work: Callable[[], T], *addresses: str) -> T:
    """Run ``work`` in a thread that lives in a fresh namespace; threads that it starts live there, too.

    ``addresses`` (``10.0.0.1/24``) are put on an interface ``lan0`` that leads nowhere. The namespace ends with the
    last thread and socket in it.
    """
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            settle_namespace()
            _ip("link", "set", "lo", "up")
            # A pair has a carrier at once; a bridge without ports loses it a moment later, and a packet with it.
            _ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
            _ip("link", "set", "lan1", "up")
            _ip("link", "set", "lan0", "up")
            for address in addresses:
                _ip("address", "add", address, "dev", "lan0", *(["nodad"] if ":" in address else []))
            result.append(work())
        except BaseException as error:  # noqa: BLE001  # it is the caller's
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
