"""Bridge and taps, through netlink. Each call opens and closes its own socket: pyroute2's belong to one thread."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from banger.core import clock
from banger.core.crashpoints import crashpoint
from banger.core.egress import Network
from banger.core.errors import BangerError, ErrorKind
from banger.network.addresses import Plan, mac_of
from banger.network.guests import Guest
from banger.network.link_dump import dump_links
from banger.network.names import Alias, bridge_name, owner_of
from banger.network.sysctl import tame_bridge, tame_tap

#: IPv6 does not work below (RFC 8200, 5); above, the kernel's taps end (``TAP_MAX_MTU``).
_SMALLEST_MTU, _LARGEST_MTU = 1280, 65521
_USUAL_MTU = 1500
_IPV4, _IPV6 = 2, 10  # AF_INET, AF_INET6
_MAIN_TABLE, _LOCAL_TABLE = 254, 255
#: linux/rtnetlink.h, types of routes: the host's own addresses, broadcast and anycast ones.
_OWN = (2, 3, 4)
#: linux/neighbour.h: a permanent entry is never asked for nor replaced; a port's own entry of the bridge.
_PERMANENT, _STATIC, _ON_MASTER = 0x80, 0x40, 0x04
_NO_DUPLICATE_CHECK = 0x02  # IFA_F_NODAD: without a port there is nobody to ask, and the address would stay tentative
_UP = 1  # IFF_UP
_GONE = (errno.ENODEV, errno.ENOENT, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    index: int
    name: str
    alias: str
    mtu: int
    master: int
    is_up: bool

    @property
    def since(self) -> float:
        """When banger made it, in seconds since the epoch; 0 if it does not tell."""
        alias = Alias.parse(self.alias)
        return alias.made_at.timestamp() if alias else 0.0


@contextmanager
def _netlink(doing: str) -> Iterator[Any]:
    from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415  # takes 0.2 s

    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        raise _failed(doing, error.code, str(error)) from error
    except OSError as error:  # of /dev/net/tun
        raise _failed(doing, error.errno or 0, str(error)) from error


def _failed(doing: str, code: int, cause: str) -> BangerError:
    if code in (errno.EPERM, errno.EACCES):
        hint = "run the daemon as root, or use --network user"
        return BangerError(ErrorKind.DENIED, f"not allowed to {doing}", cause=cause, hint=hint)
    return BangerError(ErrorKind.UNAVAILABLE, f"cannot {doing}", cause=cause, hint="banger doctor")


def all_links() -> list[Link]:
    """Every interface of this host."""
    try:
        return [
            Link(one.index, one.name, one.alias, one.mtu, one.master, is_up=bool(one.flags & _UP))
            for one in dump_links()
        ]
    except OSError as error:
        raise _failed("list network interfaces", error.errno or 0, str(error)) from error


def find_link(name: str) -> Link | None:
    """One interface, or None."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return None  # known without pyroute2, which every daemon without taps would load for this
    with _netlink(f"look at {name}") as netlink:
        return next(map(_link, _messages(netlink, name)), None)


def host_routes(besides: str) -> list[Network]:
    """Destinations of all routes, but no default routes and none over the interface ``besides``."""
    own = find_link(besides)
    found: list[Network] = []
    with _netlink("list routes") as netlink:
        for message in [*netlink.get_routes(family=_IPV4), *netlink.get_routes(family=_IPV6)]:
            destination = message.get_attr("RTA_DST")
            if destination and message["dst_len"] and (own is None or message.get_attr("RTA_OIF") != own.index):
                found.append(ip_network(f"{destination}/{message['dst_len']}", strict=False))
    return found


def own_networks() -> list[Network]:
    """Every address at which this host answers itself, as its routes say: also those that no interface has."""
    with _netlink("list addresses") as netlink:
        found = [
            ip_network(f"{destination}/{message['dst_len']}", strict=False)
            for family in (_IPV4, _IPV6)
            for message in netlink.get_routes(family=family, table=_LOCAL_TABLE)
            if message["type"] in _OWN and (destination := message.get_attr("RTA_DST"))
        ]
    return sorted(set(found), key=lambda one: (one.version, int(one.network_address), one.prefixlen))


def has_default_route(interface: str) -> bool:
    """A default route leads through an interface, for either family."""
    with _netlink("look at the default route") as netlink:
        indexes = netlink.link_lookup(ifname=interface)
        return any(
            not message["dst_len"] and message.get_attr("RTA_OIF") in indexes
            for family in (_IPV4, _IPV6)
            for message in netlink.get_routes(family=family, table=_MAIN_TABLE)
        )


def uplink_mtu() -> int:
    """How large a packet may be on the way to the world: what the default route says, else its interface."""
    with _netlink("look at the default route") as netlink:
        defaults = [
            message for message in netlink.get_routes(family=_IPV4, table=_MAIN_TABLE) if not message["dst_len"]
        ]
        if not defaults:
            return _USUAL_MTU
        best = min(defaults, key=lambda message: message.get_attr("RTA_PRIORITY") or 0)
        metrics = best.get_attr("RTA_METRICS")
        mtu = metrics.get_attr("RTAX_MTU") if metrics else None
        if not mtu:
            mtu = next((link["mtu"] for link in _by_index(netlink, best.get_attr("RTA_OIF"))), _USUAL_MTU)
    return max(_SMALLEST_MTU, min(int(mtu), _LARGEST_MTU))


def ensure_bridge(installation_id: str, plan: Plan, mtu: int) -> bool:
    """Have the bridge, up, with the plan's addresses and no others. Idempotent.

    Returns:
        False if it was not there or down: then the kernel has forgotten what it was told about its ports.
    """
    name = bridge_name(installation_id)
    with _netlink(f"make the bridge {name}") as netlink:
        was_up = any(message["flags"] & _UP for message in _messages(netlink, name))
        if not netlink.link_lookup(ifname=name):
            alias = Alias(installation_id, "", clock.now())
            # Its own address, lest it take over that of a tap and change with it.
            netlink.link(
                "add", ifname=name, kind="bridge", address=mac_of(f"bridge {installation_id}"), mtu=mtu,
                ifalias=str(alias), br_stp_state=0, br_mcast_snooping=0,
            )  # fmt: skip
            crashpoint("tap.prepare:bridge-added")
        index = netlink.link_lookup(ifname=name)[0]
        tame_bridge(name)
        wanted = {(str(plan.gateway), plan.subnet.prefixlen)}
        if plan.subnet6:
            wanted.add((str(plan.gateway6), plan.subnet6.prefixlen))
        _set_addresses(netlink, index, wanted)
        if not was_up:
            netlink.link("set", index=index, state="up")
    return was_up


def _set_addresses(netlink: Any, index: int, wanted: set[tuple[str, int]]) -> None:
    present = {
        (message.get_attr("IFA_ADDRESS"), message["prefixlen"])
        for message in netlink.get_addr(index=index)
        if not str(message.get_attr("IFA_ADDRESS")).startswith("fe80:")
    }
    for address, length in present - wanted:
        netlink.addr("del", index=index, address=address, prefixlen=length)
    for address, length in wanted - present:
        flags = _NO_DUPLICATE_CHECK if ":" in address else 0
        netlink.addr("add", index=index, address=address, prefixlen=length, flags=flags)


def ensure_tap(installation_id: str, guest: Guest, owner_uid: int, mtu: int = 0) -> int:
    """Have a guest's tap on the bridge, up and apart from its siblings. Idempotent. Its index.

    The bridge learns nothing from the port, and the host's neighbour entries are fixed: what a guest says about
    addresses changes neither, whether or not our rules are in place. ``mtu`` 0 leaves that of a running guest alone.
    """
    with _netlink(f"make the tap {guest.tap}") as netlink:
        if not netlink.link_lookup(ifname=guest.tap):
            netlink.link("add", ifname=guest.tap, kind="tuntap", mode="tap", uid=owner_uid)
            crashpoint("tap.prepare:tap-added")
        index = netlink.link_lookup(ifname=guest.tap)[0]
        alias = next(iter(netlink.get_links(index))).get_attr("IFLA_IFALIAS") or ""
        if alias and owner_of(guest.tap, alias, installation_id) != guest.vm_id:
            raise BangerError(
                ErrorKind.CONFLICT,
                f'the tap "{guest.tap}" belongs to somebody else',
                subject=guest.tap,
                cause=alias,
                hint="create the VM again: another ID gives another name",
            )
        if not alias:
            netlink.link("set", index=index, ifalias=str(Alias(installation_id, guest.vm_id, clock.now())))
        tame_tap(guest.tap)
        bridge = _index_of(netlink, bridge_name(installation_id))
        netlink.link("set", index=index, master=bridge, **({"mtu": mtu} if mtu else {}))
        netlink.brport("set", index=index, isolated=1, learning=0)
        netlink.fdb("replace", ifindex=index, lladdr=guest.mac, flags=_ON_MASTER, state=_STATIC)
        for address in filter(None, (guest.address, guest.address6)):
            netlink.neigh("replace", dst=str(address), lladdr=guest.mac, ifindex=bridge, state=_PERMANENT)
        netlink.link("set", index=index, state="up")
    return int(index)


def set_tap(name: str, *, up: bool) -> None:
    """Bring a tap up, or down: then it carries nothing."""
    with _netlink(f"bring the tap {name} {'up' if up else 'down'}") as netlink:
        netlink.link("set", index=_index_of(netlink, name), state="up" if up else "down")


def forget_neighbour(installation_id: str, guest: Guest) -> None:
    """Drop the host's neighbour entries of a guest; already gone is success."""
    with _netlink("forget a neighbour") as netlink:
        found = netlink.link_lookup(ifname=bridge_name(installation_id))
        for address in filter(None, (guest.address, guest.address6) if found else ()):
            with _gone_is_fine():
                netlink.neigh("del", dst=str(address), ifindex=found[0])


def remove_tap(installation_id: str, name: str) -> None:
    """Delete a tap of this installation; gone, or another installation's by its alias, is success."""
    link = find_link(name)
    if link is not None and owner_of(name, link.alias, installation_id) is not None:
        _remove(link)


def remove_bridge(installation_id: str) -> None:
    """Delete the bridge; already gone is success."""
    link = find_link(bridge_name(installation_id))
    if link is not None:
        _remove(link)


def bridge_plan(installation_id: str) -> Plan | None:
    """The plan that the bridge has now; None without a bridge or an address."""
    networks: list[Network] = []
    with _netlink("look at the bridge") as netlink:
        for index in netlink.link_lookup(ifname=bridge_name(installation_id)):
            networks += [
                ip_network(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}", strict=False)
                for message in netlink.get_addr(index=index)
            ]
    subnet = next((one for one in networks if isinstance(one, IPv4Network)), None)
    subnet6 = next((one for one in networks if isinstance(one, IPv6Network) and not one.is_link_local), None)
    return Plan(subnet, subnet6) if subnet else None


def _remove(link: Link) -> None:
    with _netlink(f"delete {link.name}") as netlink, _gone_is_fine():
        netlink.link("del", index=link.index)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    from pyroute2 import NetlinkError  # noqa: PLC0415  # takes 0.2 s

    try:
        yield
    except NetlinkError as error:
        if error.code not in _GONE:
            raise


def _messages(netlink: Any, name: str) -> list[Any]:
    """What the kernel says of one interface; nothing if it is not there. To list them all takes a millisecond each."""
    from pyroute2 import NetlinkError  # noqa: PLC0415  # takes 0.2 s

    try:
        return list(netlink.link("get", ifname=name))
    except NetlinkError as error:
        if error.code not in _GONE:
            raise
        return []


def _index_of(netlink: Any, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise BangerError(ErrorKind.UNAVAILABLE, f'the bridge "{name}" is gone', hint="banger system reconcile")
    return int(found[0])


def _by_index(netlink: Any, index: int | None) -> list[dict[str, Any]]:
    messages = netlink.get_links(index) if index else []
    return [{"mtu": message.get_attr("IFLA_MTU") or _USUAL_MTU} for message in messages]


def _link(message: Any) -> Link:
    return Link(
        index=int(message["index"]),
        name=str(message.get_attr("IFLA_IFNAME")),
        alias=str(message.get_attr("IFLA_IFALIAS") or ""),
        mtu=int(message.get_attr("IFLA_MTU") or 0),
        master=int(message.get_attr("IFLA_MASTER") or 0),
        is_up=bool(message["flags"] & _UP),
    )
