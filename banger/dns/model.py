"""The resolver's settings, and what it needs from the rest of the daemon."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_dns_suffix
from banger.dns.patterns import NamePatterns

DNS_PORT = 53

_BRACKETED = re.compile(r"\[([^]]*)\](?::(.*))?")
_WITH_PORT = re.compile(r"([^:]*):([^:]*)")


class NameServer(NamedTuple):
    """Where a DNS server listens; ``address`` is numeric, of either family."""

    address: str
    port: int = DNS_PORT

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Guest:
    """Who asks, if it is a guest.

    Attributes:
        allowed: the names of the outside world that it may look up; None: every name. ``NamePatterns()``: none.
    """

    vm_id: str
    allowed: NamePatterns | None = None


@dataclass(frozen=True, slots=True)
class World:
    """What the resolver asks and tells. All are called in its own threads, several at once, and may block.

    Attributes:
        addresses_of: a VM's name, lower-case, and the guest that asks (None: the host) -> its addresses as they are
            there if it runs, else None. An empty sequence: it has none.
        name_of: a numeric address -> the name of the running VM that has it, or None.
        guest_of: the source address of a question -> the guest that owns it, or None: then nothing is answered.
        open_addresses: ``(vm_id, addresses, lifetime_s)``: let the guest reach these addresses for so long. The guest
            has its answer only after this returned; if it raises, the answer is SERVFAIL. Called only for guests with
            a list of names. Repeated calls prolong.
    """

    addresses_of: Callable[[str, Guest | None], Sequence[str] | None]
    name_of: Callable[[str], str | None]
    guest_of: Callable[[str], Guest | None]
    open_addresses: Callable[[str, Sequence[str], int], None]


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """How the resolver is set up.

    Attributes:
        suffix: what names of VMs end with, without dots at its ends.
        listen: where programs of this host reach it; None: nowhere. Another port is taken if this one is in use.
        upstream: who is asked about other names; empty: who ``/etc/resolv.conf`` names.
        host_forwards: programs of this host may look up other names, too.
    """

    suffix: str = "vm"
    listen: NameServer | None = None
    upstream: tuple[NameServer, ...] = ()
    host_forwards: bool = False

    @classmethod
    def from_config(cls, config: Config) -> DnsSettings:
        """The settings below ``dns``.

        Raises:
            BangerError: ``usage``.
        """
        upstream = [text.strip() for text in config.text("dns.upstream").split(",")]
        return cls(
            suffix=check_dns_suffix(config.text("dns.suffix")),
            listen=_parse_listen(config.text("dns.listen")),
            upstream=tuple(parse_server(text, "dns.upstream") for text in upstream if text),
            host_forwards=config.text("dns.host_names") == "all",
        )


def _parse_listen(text: str) -> NameServer | None:
    if text == "off":
        return None
    server = parse_server(text, "dns.listen")
    if not ip_address(server.address).is_loopback:
        raise BangerError(
            ErrorKind.USAGE,
            f'"{text}" is not a valid value for dns.listen',
            subject="dns.listen",
            cause="it is not an address of the loopback interface",
            hint="write 127.0.0.1:5354, or off",
        )
    return server


def parse_server(text: str, key: str) -> NameServer:
    """Read ``ADDRESS``, ``ADDRESS:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``; ``key`` is the setting that it comes from.

    Raises:
        BangerError: ``usage``.
    """
    match = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    address, port = match.groups(str(DNS_PORT)) if match else (text, str(DNS_PORT))
    try:
        return NameServer(str(ip_address(address)), _port(port))
    except ValueError as error:
        raise BangerError(
            ErrorKind.USAGE,
            f'"{text}" is not a valid value for {key}',
            subject=key,
            cause=str(error),
            hint="write 127.0.0.1:5354 or [::1]:5354",
        ) from None


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) < 65536:
        return int(text)
    raise ValueError(f'"{text}" is not a port')
