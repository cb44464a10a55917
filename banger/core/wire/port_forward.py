"""One published port."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortForward:
    """A port of the host that reaches a port of the guest. :mod:`banger.core.publishing` reads and checks them.

    Attributes:
        host_port: 0: banger picks one.
        host_address: IPv4 or IPv6, in its shortest form.
        protocol: ``tcp`` or ``udp``.
        host_port_end: not 0: the first port that is free from ``host_port`` up to this.
    """

    guest_port: int
    host_port: int = 0
    host_address: str = "127.0.0.1"
    protocol: str = "tcp"
    host_port_end: int = 0

    def __str__(self) -> str:
        address = f"[{self.host_address}]" if ":" in self.host_address else self.host_address
        ports = f"{self.host_port}-{self.host_port_end}" if self.host_port_end else str(self.host_port or "?")
        return f"{address}:{ports}->{self.guest_port}/{self.protocol}"
