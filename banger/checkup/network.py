"""The checks of a guest's network: it must reach what this host reaches, as far as its policy allows.

So nothing here needs the internet: a listener of our own stands for the world beyond the guest, the host's own name
servers and router are asked by both, and who wants more names it (``--reach``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from banger.checkup import hostside
from banger.checkup.guest import Guest
from banger.checkup.probe_server import ProbeServer
from banger.checkup.report import CheckFailedError, Finding
from banger.core.console import last_lines
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import KIB, whole_number

#: The networks whose guests have addresses on a bridge, rules, and banger's resolver.
_BRIDGED = ("user", "tap")
#: Where QEMU's user-mode network has this host, told by its manual; a guest without a network must not get there.
_USUAL_GATEWAY = "10.0.2.2"
_TRANSFER_BYTES = 512 * KIB
_HEADERS_BYTES = 28  # of IPv4 and ICMP, in front of a ping's data

_LOOKUP = '$B timeout 12 $B nslookup -type=a "$1" "$2" 2>&1'
_HELLO = 'printf "%s hello\\n" "$1" | $B nc -w 10 "$2" "$3"'
_SEND = 'printf "%s send %s\\n" "$1" "$4" | $B nc -w 10 "$2" "$3" | $B sha256sum'
_TAKE = '{ printf "%s take %s\\n" "$1" "$4"; $B cat; } | $B nc -w 10 "$2" "$3"'
_CONNECT = '$B nc -w 10 "$1" "$2" -e $B true </dev/null'
_PING = '$B ping -c 2 -W 2 -s "$2" "$1"'

_FIREWALL = "banger doctor: another firewall drops what guests send, or net.ipv4.ip_forward is 0"

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class NetworkBaseline:
    """What the network checks are measured against.

    Attributes:
        listener: on this host's loopback interface.
        route: this host's default route.
        servers: this host's name servers.
        answering: tells which of some servers answer this host.
        pings, knock: tell whether a router answers this host's pings, and a TCP connection.
        name: what a guest on a tap asks banger's resolver for, given its own name.
    """

    listener: ProbeServer
    route: hostside.Route | None
    servers: Sequence[Address]
    answering: Callable[[Sequence[Address]], Sequence[Address]] = hostside.answering
    pings: Callable[[IPv4Address], bool | None] = hostside.pings
    knock: Callable[[IPv4Address], hostside.PortProbe | None] = hostside.knock
    suffix: str = "vm"
    reach: tuple[str, int] | None = None
    reaches: Callable[[str, int], str] = field(default=hostside.reaches)


def check_dns(guest: Guest, around: NetworkBaseline) -> Finding:
    """The guest's name server answers. Without anybody who answers this host there is nothing to prove."""
    if guest.network == "none":
        return Finding("no name server, as it should be: network none")
    servers = hostside.parse_nameservers(guest.shell("$B cat /etc/resolv.conf").text)
    if not servers:
        hint = "the image's own resolver service owns /etc/resolv.conf, or the image leaves it empty: try --init none"
        raise CheckFailedError("the guest's /etc/resolv.conf names no server", hint=hint)
    name = f"{guest.vm['name']}.{around.suffix}" if guest.network in _BRIDGED else "localhost"
    said = guest.shell(_LOOKUP, name, str(servers[0]))
    if answer := answer_of(said.text):
        return Finding(f"{servers[0]} answers ({name}: {answer})")
    raise_or_note = _explain_silence(guest.network, servers[0], around)
    if isinstance(raise_or_note, CheckFailedError):
        raise_or_note.cause = raise_or_note.cause or last_lines(said.text)
        raise raise_or_note
    return raise_or_note


def answer_of(printed: str) -> str:
    """What busybox's ``nslookup`` was answered: an address, or the server's refusal in a word; empty if nothing."""
    addresses = [line.split()[-1] for line in printed.partition("Name:")[2].splitlines() if "Address" in line]
    if addresses:
        return addresses[0]
    _, refused, rest = printed.partition("server can't find ")
    if refused:
        return rest.partition(": ")[2].split("\n")[0].strip() or "no such name"
    return "no address" if "No answer" in printed and "timed out" not in printed else ""


def _explain_silence(network: str, server: Address, around: NetworkBaseline) -> CheckFailedError | Finding:
    """Why a guest's question was not answered, by what this host's own servers do."""
    if not around.servers:
        return Finding("no upstream: this host's /etc/resolv.conf names no server", note=True)
    answering = around.answering(around.servers)
    asked = ", ".join(map(str, around.servers))
    if not answering:
        return Finding(f"no upstream: {asked} of this host's /etc/resolv.conf does not answer it either", note=True)
    detail = f"{server} does not answer the guest, though {answering[0]} answers this host"
    if network == "slirp":
        first = next((one for one in around.servers if one.version == 4), None)
        if first is None:
            cause = "QEMU's user-mode network asks a server with an IPv4 address, and this host has none"
            return CheckFailedError(detail, cause=cause, hint="put an IPv4 server into /etc/resolv.conf")
        if first not in answering:
            cause = f"QEMU's user-mode network asks the first IPv4 server alone, {first}, which is silent"
            return CheckFailedError(detail, cause=cause, hint=f"put {answering[0]} first in /etc/resolv.conf")
        hint = "if the guest asks another server than 10.0.2.3, its image wrote that into /etc/resolv.conf"
        return CheckFailedError(detail, hint=hint)
    return CheckFailedError(
        detail, hint="banger doctor: another firewall may drop guests' questions; banger daemon logs"
    )


def check_egress(guest: Guest, around: NetworkBaseline) -> Finding:
    """The guest gets out as far as its network lets it, and no further."""
    if guest.network == "none":
        return _check_confined(guest, around.listener)
    gateway = _gateway(guest)
    if guest.network in _BRIDGED:
        return _check_tap(guest, gateway, around)
    said = guest.shell(_HELLO, around.listener.word, gateway, str(around.listener.port), timeout_s=15)
    if said.text != "hello":
        hint = "banger vm logs --source vmm tells what QEMU met; a firewall may filter this host's loopback interface"
        raise CheckFailedError(
            f"the guest cannot connect to this host through {gateway}", cause=said.complaint, hint=hint
        )
    beyond = "" if around.reach else "; nothing beyond was tried (--reach HOST:PORT)"
    return Finding(f"connects to this host through {gateway}{beyond}")


def _check_confined(guest: Guest, listener: ProbeServer) -> Finding:
    said = guest.shell(_HELLO, listener.word, _USUAL_GATEWAY, str(listener.port), timeout_s=15)
    if said.text == "hello":
        raise CheckFailedError(
            "the guest has network none, and reaches this host all the same", hint="report this: a bug"
        )
    return Finding("reaches nothing, as it should be: network none")


def _check_tap(guest: Guest, gateway: str, around: NetworkBaseline) -> Finding:
    """Policy keeps guests on taps from this host: a refusal takes packets both ways. Beyond it, the router is asked."""
    began = time.monotonic()
    said = guest.shell(_HELLO, around.listener.word, gateway, str(around.listener.port), timeout_s=15)
    if said.text == "hello":
        raise CheckFailedError(
            f"the guest reaches this host at {gateway}, which its policy forbids", hint="banger doctor"
        )
    if "refused" not in said.complaint:
        waited = f"no refusal from {gateway} within {time.monotonic() - began:.0f} s: packets get lost on the bridge"
        raise CheckFailedError(waited, cause=said.complaint, hint="banger doctor; nft list ruleset")
    router = around.route.gateway if around.route else None
    if router is None or around.pings(router) is not True:
        why = f"{router} answers no ping of this host's" if router else "this host has no default route"
        return Finding(f"{gateway} refuses, as it should; beyond this host nothing could be tried: {why}", note=True)
    if guest.shell(_PING, str(router), "56").code:
        if guest.network == "user":
            over_tcp = _knock_as_host(guest, router, around.knock(router)) or ", and nothing else could be tried"
            why = "pings do not leave this host: sysctl -w net.ipv4.ping_group_range='0 2147483647'"
            return Finding(f"{gateway} refuses, as it should; {why}{over_tcp}", note=True)
        raise CheckFailedError(
            f"the guest does not reach {router}, this host's router, and this host does", hint=_FIREWALL
        )
    over_tcp = _knock_as_host(guest, router, around.knock(router))
    return Finding(f"{gateway} refuses, as it should; {router}, this host's router, answers{over_tcp}")


def _knock_as_host(guest: Guest, router: IPv4Address, answer: hostside.PortProbe | None) -> str:
    """Pings may pass where connections do not: the router must say to the guest what it says to this host."""
    if answer is None or (guest.network == "user" and not answer.accepts):
        return ""  # pasta of 2023 lets the guest wait where this host is refused
    said = guest.shell(_CONNECT, str(router), str(answer.port), timeout_s=20)
    if "invalid option" in said.complaint:
        return ""
    if (said.code != 0) if answer.accepts else ("refused" not in said.complaint):
        detail = f"pings to {router} come back, and TCP does not as it does for this host (port {answer.port})"
        raise CheckFailedError(detail, cause=said.complaint, hint=_FIREWALL)
    return ", to TCP too"


def check_mtu(guest: Guest, around: NetworkBaseline) -> Finding:
    """Packets of full size get through."""
    if guest.network == "none":
        return Finding("no packets leave the guest: network none")
    said = guest.shell('for card in /sys/class/net/e*; do read -r mtu <"$card/mtu"; echo "$mtu"; break; done')
    mtu = whole_number(said.text)
    if mtu is None:
        hint = "the kernel has no driver for the network card of this machine: --kernel debian-cloud, or --machine q35"
        raise CheckFailedError("the guest has no network card", cause=said.complaint, hint=hint)
    if guest.network == "user":
        return Finding(f"{mtu} bytes; pasta makes of them what the way out takes")
    if guest.network == "tap":
        return _check_tap_mtu(guest, mtu, around)
    return _check_transfers(guest, mtu, around.listener)


def _check_tap_mtu(guest: Guest, mtu: int, around: NetworkBaseline) -> Finding:
    if around.route is None or not around.route.mtu:
        return Finding(f"{mtu} bytes; this host has no route to compare it with", note=True)
    uplink = f"{around.route.mtu} bytes of this host's {around.route.interface}"
    if mtu > around.route.mtu:
        hint = "a VPN that came up later? banger vm stop and start give the guest the present size"
        raise CheckFailedError(f"the guest's packets may have {mtu} bytes, more than the {uplink}", hint=hint)
    router = str(around.route.gateway)
    if guest.shell(_PING, router, "56").code:
        return Finding(f"{mtu} bytes, as the {uplink}; no answer to a ping, so none of full size was tried", note=True)
    if guest.shell(_PING, router, str(mtu - _HEADERS_BYTES)).code:
        hint = f"a network on the way takes less than {mtu} bytes: ping -M do -s {mtu - _HEADERS_BYTES} {router}"
        raise CheckFailedError(f"a ping of {mtu} bytes to {router} gets lost, a small one does not", hint=hint)
    return Finding(f"{mtu} bytes, as the {uplink}; pings of full size come back")


def _check_transfers(guest: Guest, mtu: int, listener: ProbeServer) -> Finding:
    where = (listener.word, _gateway(guest), str(listener.port), str(_TRANSFER_BYTES))
    began = time.monotonic()
    for direction, script in (("to", _SEND), ("from", _TAKE)):
        stdin = listener.data(_TRANSFER_BYTES) if script is _TAKE else b""
        try:
            said = guest.shell(script, *where, stdin=stdin, timeout_s=20)
        except BangerError as error:
            if error.kind is not ErrorKind.TIMEOUT:
                raise
            hint = "packets of full size get lost on the way: compare ip link here with ifconfig in the guest"
            raise CheckFailedError(f"512 KiB {direction} the guest stalled", hint=hint) from error
        if said.text.split(" ")[0] != listener.digest_of(_TRANSFER_BYTES):
            raise CheckFailedError(f"512 KiB {direction} the guest did not arrive whole", cause=said.complaint)
    return Finding(f"{mtu} bytes; 512 KiB to and from the guest in {time.monotonic() - began:.1f} s")


def check_reach(guest: Guest, around: NetworkBaseline) -> Finding:
    """What the user named is reached from the guest, if this host reaches it."""
    assert around.reach is not None
    host, port = around.reach
    if guest.network == "none":
        return Finding("not tried: network none")
    if refusal := around.reaches(host, port):
        return Finding(f"this host does not reach {host}:{port} either: {refusal}", note=True)
    address = host if _is_address(host) else _look_up(guest, host)
    said = guest.shell(_CONNECT, address, str(port), timeout_s=20)
    if "invalid option" in said.complaint:
        return Finding("not tried: this host's busybox was built without the option -e of nc", note=True)
    if said.code:
        hint = "a firewall of this host, or on the way, tells guests from this host: banger doctor"
        raise CheckFailedError(
            f"the guest does not reach {host}:{port}, and this host does", cause=said.complaint, hint=hint
        )
    return Finding(f"{host}:{port} ({address})" if address != host else f"{host}:{port}")


def _look_up(guest: Guest, name: str) -> str:
    servers = hostside.parse_nameservers(guest.shell("$B cat /etc/resolv.conf").text)
    said = guest.shell(_LOOKUP, name, str(servers[0]) if servers else "127.0.0.1")
    answer = answer_of(said.text)
    if not _is_address(answer):
        detail = f"the guest cannot look up {name}, and this host can"
        raise CheckFailedError(detail, cause=answer or last_lines(said.text), hint="see the row dns")
    return answer


def _gateway(guest: Guest) -> str:
    found = hostside.parse_routes(guest.shell("$B cat /proc/net/route").stdout.decode(errors="replace"))
    if found is None:
        hint = "the image's own init took the address away: try --init none"
        raise CheckFailedError("the guest has no default route", hint=hint)
    return str(found[0])


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
