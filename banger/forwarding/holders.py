"""Which process listens on a port of this host, as far as this user can see.

Formats: ``/proc/net/tcp``, ``tcp6``, ``udp``, ``udp6`` and ``/proc/PID/fd``, proc(5): addresses as hexadecimal words in
host byte order, state 0A is LISTEN, the tenth field is the socket's inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from banger.core.wire.port_forward import PortForward

_LISTEN = "0A"


def holder_of(forward: PortForward) -> str:
    """``nginx (pid 1234)``; empty if nobody is seen."""
    for inode in _inodes(forward):
        if owner := _owner(f"socket:[{inode}]"):
            return owner
    return ""


def listening(text: str, protocol: str) -> Iterator[tuple[str, int, str]]:
    """Address, port and inode of every socket in a table that waits for others. Pure."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and (protocol == "udp" or fields[3] == _LISTEN):
            address, _, port = fields[1].partition(":")
            yield _address(address), int(port, 16), fields[9]


def _address(words: str) -> str:
    data = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    return str(IPv4Address(data) if len(data) == 4 else IPv6Address(data))


def _inodes(forward: PortForward) -> Iterator[str]:
    every = {"0.0.0.0", "::"}  # noqa: S104  # compared with
    for table in (forward.protocol, f"{forward.protocol}6"):
        with suppress(OSError):
            for address, port, inode in listening(
                Path("/proc/net", table).read_text(encoding="utf-8"), forward.protocol
            ):
                same = address == forward.host_address or address in every or forward.host_address in every
                if port == forward.host_port and same:
                    yield inode


def _owner(link: str) -> str:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if any(_points_at(descriptor, link) for descriptor in (entry / "fd").iterdir()):
                return f"{(entry / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (pid {entry.name})"
    return ""


def _points_at(descriptor: Path, link: str) -> bool:
    try:
        return os.readlink(descriptor) == link  # noqa: PTH115  # hundreds of thousands are read
    except OSError:
        return False
