"""Current connections to a guest, from the host's table of TCP connections.

Format: ``/proc/net/tcp`` and ``tcp6``, proc(5): addresses as hexadecimal words in host byte order, state 01 is
ESTABLISHED.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from banger.core.models import Vm

_ESTABLISHED = "01"


@dataclass(frozen=True, slots=True)
class Connection:
    """One end of an established connection, seen from the socket that this host has of it."""

    local_port: int
    remote_address: str
    remote_port: int


def parse(text: str) -> Iterator[Connection]:
    """Established connections in a table."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _ESTABLISHED:
            remote, _, remote_port = fields[2].partition(":")
            words = (bytes.fromhex(remote[at : at + 8])[::-1] for at in range(0, len(remote), 8))
            address = str(ip_address(b"".join(words)))
            yield Connection(int(fields[1].partition(":")[2], 16), address, int(remote_port, 16))


def established() -> list[Connection]:
    """All of this host's."""
    found: list[Connection] = []
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # a kernel without IPv6
            found += parse(Path("/proc/net", table).read_text(encoding="utf-8"))
    return found


def into_guest(vm: Vm, connections: Iterable[Connection]) -> int:
    """How many connections lead into the guest: through forwarded ports, or straight to its own address."""
    forwarded = {forward.host_port for forward in vm.ports}
    loopback = vm.address.startswith("127.")
    return sum(one.local_port in forwarded if loopback else one.remote_address == vm.address for one in connections)
