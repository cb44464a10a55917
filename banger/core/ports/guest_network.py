"""The addresses of a guest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """The addresses of a guest's one network card, or, without one, of its loopback.

    Set by banger's init before anything of the image runs.

    Attributes:
        address: IPv4 address and prefix length: ``10.0.2.15/24``. A guest that is cut off has one too.
        gateway: its default route; empty for none.
        nameserver: what its resolver asks; empty leaves the image's own setting.
        address6, gateway6: the same for IPv6; empty for none.
        mtu: 0 for the kernel's default.
    """

    address: str
    gateway: str = ""
    nameserver: str = ""
    address6: str = ""
    gateway6: str = ""
    mtu: int = 0
