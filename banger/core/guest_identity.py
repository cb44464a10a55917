"""What a running guest says of who it is. All of it is the guest's word."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SeenIdentity:
    """One look at what tells a guest from others. What it does not have is empty.

    Attributes:
        clock_ns: its wall clock, nanoseconds since 1970.
        random: UUIDs that its kernel has just made.
        hostname: its kernel's.
        hostname_file: what ``/etc/hostname`` says.
        vm_id: of the VM whose first boot its disk vouches for.
        host_key: the public key of banger's own ssh server, 64 hexadecimal digits (RFC 8709, section 4).
        has_ssh_server: that server runs, so it goes on with the key that it has started with.
        sshd_keys: names of the image's own ssh host keys in ``/etc/ssh`` to the key in their ``.pub`` files.
        has_systemd: that is its process 1.
        seeds: files from which its kernel, or a DHCP client, would repeat itself after the next boot, to what tells
            one from another that was written in its place.
        card: its network card; ``mac`` and ``addresses``, as ADDRESS/PREFIX, are this card's.
        gateways: of its default routes.
        nameservers: of ``/etc/resolv.conf``.
        has_ipv6: its card can have IPv6 addresses.
    """

    clock_ns: int = 0
    random: tuple[str, ...] = ()
    hostname: str = ""
    hostname_file: str = ""
    machine_id: str = ""
    boot_id: str = ""
    vm_id: str = ""
    host_key: str = ""
    has_ssh_server: bool = False
    sshd_keys: Mapping[str, str] = field(default_factory=dict)
    has_systemd: bool = False
    seeds: Mapping[str, str] = field(default_factory=dict)
    card: str = ""
    mac: str = ""
    is_up: bool = False
    addresses: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    has_ipv6: bool = False
