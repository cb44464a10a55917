"""Where guests' DNS queries go. A guest always asks its gateway, which forwards the query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from banger.posix.files import text_or_empty

DNS_PORT = 53

#: systemd-resolved keeps the real servers here when ``/etc/resolv.conf`` names its own stub (resolved.conf(5)).
_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


@dataclass(frozen=True, slots=True)
class Resolver:
    """A DNS server that answers guests over UDP and TCP.

    Attributes:
        address: of this host (a loopback address too) or of another; None: the bridge's own address.
        follows_names: it is banger's own, refuses what a guest's policy does not allow, and tells
            :meth:`banger.network.tap.TapNetwork.add_allowed` what names stand for.
    """

    address: IPv4Address | None
    port: int = DNS_PORT
    follows_names: bool = False

    @property
    def is_loopback(self) -> bool:
        """It listens where packets from a network card do not arrive by themselves."""
        return self.address is not None and self.address.is_loopback


def host_resolver(gateway: IPv4Address) -> Resolver | None:  # noqa: ARG001  # another one may have to listen there
    """What the host itself asks, a server in the network rather than a stub; None if it asks nobody by IPv4."""
    servers = [server for file in _FILES for server in parse_resolv_conf(text_or_empty(file))]
    chosen = next((server for server in servers if not server.is_loopback), next(iter(servers), None))
    return Resolver(chosen) if chosen else None


def parse_resolv_conf(text: str) -> Iterator[IPv4Address]:
    """The IPv4 servers of a ``resolv.conf`` (resolv.conf(5)), in their order."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                yield IPv4Address(words[1])
            except ValueError:
                continue
