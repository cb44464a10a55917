"""What a guest may reach: the text of ``--egress`` and its meaning. Pure.

A policy is one of the words ``open``, ``public`` and ``none``, or one or two lists, separated by a space::

    allow=192.0.2.0/24,2001:db8::/32
    allow-names=deb.debian.org,*.example.org
    allow=192.0.2.7 allow-names=example.org

Whatever the policy, a guest never reaches its host, other guests, link-local addresses or metadata services.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from banger.core.errors import BangerError, ErrorKind

Network = IPv4Network | IPv6Network

#: Private, shared and unique local addresses (RFC 1918, RFC 6598, RFC 4193): what ``public`` leaves out.
PRIVATE = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)

#: Never reached from a guest: this host, link-local addresses, multicast, and where clouds keep their metadata
#: (169.254.169.254 and fd00:ec2::254 of AWS and others, 168.63.129.16 of Azure, 100.100.100.200 of Alibaba), also in
#: the notations that embed an IPv4 address in an IPv6 one (RFC 4291 2.5.5, RFC 6052, RFC 3056).
NEVER = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32", "224.0.0.0/4",
        "255.255.255.255/32", "::/96", "::ffff:0:0/96", "64:ff9b::a9fe:0/112", "64:ff9b::7f00:0/104",
        "64:ff9b::a83f:8110/128", "64:ff9b::6464:64c8/128", "2002:a9fe::/32", "2002:7f00::/24", "fe80::/10", "ff00::/8",
        "fd00:ec2::254/128",
    )
)  # fmt: skip

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"\*|(\*\.)?{_LABEL}(\.{_LABEL})*")
_ADDRESS_LIKE = re.compile(r"[0-9.]+")
_LONGEST_NAME = 253
_HINT = "write open, public, none, allow=192.0.2.0/24,… or allow-names=example.org,*.example.net"


class EgressMode(StrEnum):
    """The kind of a policy. ``public`` is ``open`` without private networks."""

    OPEN = "open"
    PUBLIC = "public"
    NONE = "none"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What one guest may reach.

    Attributes:
        networks: with mode ``allow``: where it may connect.
        names: with mode ``allow``: names it may look up, and then connect to what they stand for. ``*.example.org`` is
            every name below ``example.org``, not that name itself; ``*`` is every name.
    """

    mode: EgressMode = EgressMode.PUBLIC
    networks: tuple[Network, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> EgressPolicy:
        """Read a policy; raises ``usage`` for anything that is none."""
        words = text.split()
        if len(words) == 1 and words[0] in ("open", "public", "none"):
            return cls(EgressMode(words[0]))
        lists: dict[str, tuple[str, ...]] = {}
        for word in words:
            key, separator, rest = word.partition("=")
            items = tuple(rest.split(","))
            if not separator or key not in ("allow", "allow-names") or key in lists or not all(items):
                raise _refused(text)
            lists[key] = items
        if not lists:
            raise _refused(text)
        networks = tuple(dict.fromkeys(_network(item) for item in lists.get("allow", ())))
        names = tuple(dict.fromkeys(_name(item) for item in lists.get("allow-names", ())))
        return cls(EgressMode.ALLOW, networks, names)

    def __str__(self) -> str:
        if self.mode is not EgressMode.ALLOW:
            return self.mode.value
        lists = {"allow": [str(network) for network in self.networks], "allow-names": self.names}
        return " ".join(f"{key}={','.join(items)}" for key, items in lists.items() if items)


def check_egress(egress: str, network: str) -> None:
    """Raise ``usage`` for a policy that is none, and for one that nobody would enforce."""
    policy = EgressPolicy.parse(egress)
    if network == "slirp" and policy.mode is not EgressMode.OPEN:
        raise BangerError(
            ErrorKind.USAGE,
            f'"{egress}" cannot be enforced on the network "slirp"',
            subject=egress,
            cause="its guests reach all that this user reaches, services on this host's loopback too",
            hint="use --network user, or, if that is what you want: --network slirp --egress open",
        )
    if network == "none" and policy.mode is EgressMode.ALLOW:
        raise BangerError(
            ErrorKind.USAGE,
            f'"{egress}" is of no use on the network "none", where nothing is reached',
            subject=egress,
            hint="use --network user",
        )


def _network(text: str) -> Network:
    if "%" in text:  # a zone (RFC 4007), which may be any text at all, belongs to one host's interface
        raise _refused(text, "an address with a zone means something on its own host only")
    try:
        network = ip_network(text)
    except ValueError as error:
        raise _refused(text, str(error)) from None
    if any(network.version == never.version and network.subnet_of(never) for never in NEVER):  # type: ignore[arg-type]
        raise _refused(text, "no guest may reach its host, link-local addresses or metadata services")
    return network


def _name(text: str) -> str:
    name = text.lower().rstrip(".")
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name) or _ADDRESS_LIKE.fullmatch(name):
        raise _refused(
            text, "it is not a DNS name; write addresses after allow=, international names in their xn-- form"
        )
    return name


def _refused(text: str, cause: str = "") -> BangerError:
    message = f'"{text}" is not an egress policy' if not cause else f'"{text}" cannot be in an egress policy'
    return BangerError(ErrorKind.USAGE, message, subject=text, cause=cause, hint=_HINT)
