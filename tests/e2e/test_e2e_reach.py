"""What real guests reach, on every network, as root's VMs and as those of an ordinary user who has no privilege at all.

All daemons live in one host, which is a network namespace with a small world of servers beyond it. Every guest is asked
the same questions by one command.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from tests.support import reach
from tests.support.apart_lab import needs_namespaces
from tests.support.command import Result
from tests.support.daemon import NOBODY, BangerHome, banger_home, with_tun
from tests.support.dns import FakeNameServer, name_server, records
from tests.support.images import busybox_rootfs
from tests.support.netlab import (
    HOST,
    HOST6,
    METADATA,
    OTHER_SERVER,
    PRIVATE_SERVER,
    SERVER,
    SERVER6,
    Lab,
    Namespace,
    needs_taps,
)
from tests.support.reach import Answer, reached
from tests.support.soak import IS_SOAK

pytestmark = [
    pytest.mark.boot,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    needs_taps,
    needs_namespaces,
]

#: Of the host, on other interfaces than the one that leads out: as of a container engine, and one that is public.
BRIDGE, SECOND = "172.17.0.1", "203.0.113.77"
METADATA6, PRIVATE_SERVER6 = "fd00:ec2::254", "fd99::9"
NAMES = {"server.example": SERVER, "other.example": OTHER_SERVER}
ONE_NAME = "server.example"

WORLD_SERVERS = [f"tcp/{one}/80" for one in (SERVER, OTHER_SERVER, SERVER6)]
PRIVATE_SERVERS = [f"tcp/{one}/80" for one in (PRIVATE_SERVER, PRIVATE_SERVER6)]
METADATA_SERVICES = [f"tcp/{one}/80" for one in (METADATA, METADATA6)]
#: The host listens at all of its addresses; at its loopback, on another port too.
OWN_ADDRESSES = [f"tcp/{one}/9000" for one in (HOST, BRIDGE, SECOND, HOST6)]
GATEWAYS = ["tcp/gateway/9000", "tcp/gateway6/9000", "tcp/10.0.2.2/9001"]
LOOPBACK = ["loopback/127.0.0.1/9000", "loopback/127.0.0.1/9001"]
PINGS = [f"ping/{one}/" for one in (SERVER, SERVER6)]
NAMED = [f"name/{name}/80" for name in NAMES]
#: To the world, and to the host; each says which guest has sent it.
DATAGRAMS = [f"udp/{SERVER}/5000/to-world-{{}}", f"udp/{HOST}/9000/to-host-{{}}", "udp/gateway/9000/to-host-{}"]
QUESTIONS = [
    *WORLD_SERVERS, *PRIVATE_SERVERS, *METADATA_SERVICES, *OWN_ADDRESSES, *GATEWAYS, *LOOPBACK, *PINGS, *NAMED,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """A VM of a user; it listens on port 80, which is published at all of the host's addresses."""

    who: str
    network: str
    egress: str
    published: int
    note: str = ""

    @property
    def name(self) -> str:
        """As users and tests call it: ``user-open``."""
        kind = self.egress.partition("=")[0] if self.network != "none" else ""
        return "-".join(filter(None, (self.network, kind, self.note)))

    @property
    def id(self) -> str:
        """Of all VMs here."""
        return f"{self.who}-{self.name}"


ROOT, ORDINARY = "root", "ordinary"
LISTS = f"allow={OTHER_SERVER},{SERVER6} allow-names={ONE_NAME}"
WISHES = (
    Wish(ORDINARY, "user", "public", 8001),
    Wish(ORDINARY, "user", "open", 8002),
    Wish(ORDINARY, "user", LISTS, 8003),
    Wish(ORDINARY, "none", "public", 8004),
    Wish(ROOT, "user", "public", 8005),
    Wish(ROOT, "tap", "public", 8007),
    Wish(ROOT, "slirp", "open", 8008),
    *([Wish(ORDINARY, "user", "none", 8009), Wish(ROOT, "none", "public", 8010)] if IS_SOAK else []),
)
CONFINED = [one for one in WISHES if one.network != "slirp"]
every_guest = pytest.mark.parametrize("wish", CONFINED, ids=lambda one: one.id)


@dataclass(frozen=True, slots=True)
class World:
    """The host and what is beyond it; ``homes`` are the installations on it, by whose they are."""

    lab: Lab
    homes: Mapping[str, BangerHome]


@dataclass(frozen=True, slots=True)
class Found:
    """What all guests answered, by :attr:`Wish.id`; their cards; and where their siblings are, as questions."""

    answers: Mapping[str, Mapping[str, Answer]]
    cards: Mapping[Wish, str]
    siblings: Mapping[str, Sequence[str]]

    def check(self, wish: Wish, questions: Sequence[str], expected: Sequence[str] = ()) -> None:
        """Of these questions, that guest was answered the ``expected`` ones and no others."""
        given = self.answers[wish.id]
        wrong = {one: given[one].words for one in questions if given[one].reached is not (one in expected)}
        assert not wrong


@pytest.fixture(scope="module")
def world(session_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        lab = Lab(stack, tmp_path_factory.mktemp("lab"), bridge_netfilter=False)
        _add_hosts(lab)
        server = stack.enter_context(_names_in(lab.world))
        settings = {"BANGER_DNS_UPSTREAM": f"{SERVER}:{server.server.port}"}
        rootfs = busybox_rootfs(session_root / "reach.ext4")
        rootfs.chmod(0o644)
        roots = stack.enter_context(banger_home(session_root, **settings))
        roots.run("image", "register", "--rootfs", str(rootfs), "--name", "busybox").ok()
        roots.run("kernel", "pull", "debian-cloud").ok()
        roots.run("daemon", "stop").ok()
        ordinary = stack.enter_context(banger_home(session_root, NOBODY, **settings))
        _copy_installation(roots, ordinary)
        homes = {ROOT: roots, ORDINARY: ordinary}
        for home in homes.values():  # from now on their daemons live in the lab's host
            inside = ("nsenter", f"--net=/proc/{lab.host.pid}/ns/net", *with_tun(session_root))
            home.cli = replace(home.cli, prefix=(*inside, *home.cli.prefix))
        yield World(lab, homes)
        for home in homes.values():
            assert home.json("doctor", "--leaks") == []


def _add_hosts(lab: Lab) -> None:
    lab.host.run(f"ip link add other type bridge; ip link set other up; ip addr add {BRIDGE}/16 dev other")
    lab.host.run("ip link set up0 mtu 1420")
    lab.host.run(f"ip addr add {SECOND}/32 dev lo; sysctl -qw net.ipv4.ping_group_range='0 2147483647'")
    for address in (METADATA6, PRIVATE_SERVER6):
        lab.world.run(f"ip addr add {address}/128 dev lo nodad")
        lab.servers.tcp(lab.world, address, 80)
    for address in ("0.0.0.0", HOST6, "::1"):
        lab.servers.tcp(lab.host, address, 9000)
    lab.servers.tcp(lab.host, "127.0.0.1", 9001)
    lab.servers.udp(lab.host, "0.0.0.0", 9000)


@contextmanager
def _names_in(namespace: Namespace) -> Iterator[FakeNameServer]:
    """A name server beyond the host that knows :data:`NAMES`."""

    def respond(query: dns.message.Message, _tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        name = query.question[0].name.to_text(omit_final_dot=True)
        if name not in NAMES:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif query.question[0].rdtype == dns.rdatatype.A:
            response.answer = records(f"{name}. 60 A {NAMES[name]}")
        return [response.to_wire()]

    serving = name_server(respond, SERVER)
    with namespace.entered():
        server = serving.__enter__()
    try:
        yield server
    finally:
        with namespace.entered():
            serving.__exit__(None, None, None)


def _copy_installation(source: BangerHome, target: BangerHome) -> None:
    """What is there of images and kernels: making it once takes long enough."""
    shutil.copytree(source.data, target.data, ignore=shutil.ignore_patterns("installation-id", "daemon.log"))
    for path in (target.data, *target.data.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


@pytest.fixture(scope="module")
def found(world: World) -> Iterator[Found]:
    """All guests at once, and what they answer."""
    with ThreadPoolExecutor(3) as pool:
        try:
            list(pool.map(lambda wish: _boot(world, wish).ok(), WISHES))
            cards = dict(zip(WISHES, pool.map(lambda wish: _card(world, wish), WISHES), strict=True))
            siblings = {wish.id: _siblings(wish, cards) for wish in WISHES}
            told = pool.map(lambda wish: _ask(world, wish, siblings[wish.id]), WISHES)
            yield Found({wish.id: answers for wish, answers in zip(WISHES, told, strict=True)}, cards, siblings)
        finally:
            list(pool.map(lambda wish: world.homes[wish.who].run("vm", "delete", "--force", wish.name), WISHES))


def _boot(world: World, wish: Wish) -> Result:
    machine = ("--memory", "192M", "--cpus", "1", "-p", f"0.0.0.0:{wish.published}:80")
    network = ("--network", wish.network, "--egress", wish.egress)
    listening = ("busybox", "--", "nc", "-ll", "-p", "80", "-e", "echo", "a sibling")
    return world.homes[wish.who].run("vm", "run", "-d", "--name", wish.name, *machine, *network, *listening)


def _card(world: World, wish: Wish) -> str:
    """What a guest says of its network card."""
    return world.homes[wish.who].guest(wish.name, "ip addr show dev eth0; cat /etc/resolv.conf").text


def _siblings(wish: Wish, cards: Mapping[Wish, str]) -> list[str]:
    """Other VMs of the same user: those of the same network at their addresses, all at their published ports."""
    others = [one for one in cards if one.who == wish.who and one != wish]
    near = [
        f"tcp/{address}/80"
        for one in others
        if one.network == wish.network
        for address in re.findall(r"inet6? ([^/ ]+)\S* .*scope global", cards[one])
    ]
    return [*near[:4], *(f"tcp/{HOST}/{one.published}" for one in others[:2])]


def _ask(world: World, wish: Wish, more: Sequence[str] = ()) -> dict[str, Answer]:
    asked = [*QUESTIONS, *(one.format(wish.id) for one in DATAGRAMS), *more]
    return reach.answers(world.homes[wish.who].run("vm", "exec", wish.name, "--", *reach.command(asked)).ok().text)


def test_all_that_guests_are_refused_is_there(world: World, found: Found) -> None:
    host = world.lab.host
    there = [
        *WORLD_SERVERS,
        *PRIVATE_SERVERS,
        *METADATA_SERVICES,
        *OWN_ADDRESSES,
        *(f"tcp/127.0.0.1/{port}" for port in (9000, 9001)),
    ]
    there += [f"tcp/127.0.0.1/{wish.published}" for wish in WISHES]
    addresses = [(one.split("/")[1], int(one.split("/")[2])) for one in there]
    assert [one for one in addresses if not host.reaches(*one)] == []
    assert {len(found.siblings[wish.id]) for wish in WISHES if wish.who == ORDINARY} == {2, 6}, found.cards


@every_guest
def test_host_is_never_reached(found: Found, wish: Wish) -> None:
    found.check(wish, [*OWN_ADDRESSES, *GATEWAYS, *LOOPBACK])


@pytest.mark.parametrize("wish", [one for one in CONFINED if one.network != "none"], ids=lambda one: one.id)
def test_refusal_is_an_answer_and_no_silence(found: Found, wish: Wish) -> None:
    given = found.answers[wish.id]
    asked = ["tcp/gateway/9000", "tcp/gateway6/9000", f"tcp/{HOST}/9000", f"tcp/{METADATA}/80"]
    assert {one: given[one].words.rpartition(": ")[2] for one in asked} == dict.fromkeys(asked, "Connection refused")


@every_guest
def test_other_guests_are_never_reached(found: Found, wish: Wish) -> None:
    assert found.siblings[wish.id]
    found.check(wish, found.siblings[wish.id])


@pytest.mark.parametrize("wish", [one for one in CONFINED if one.network != "none"], ids=lambda one: one.id)
def test_card_fits_the_way_out(found: Found, wish: Wish) -> None:
    """On a tap; on the network user, pasta makes packets fit."""
    card = found.cards[wish]
    assert ("mtu 1420 " if wish.network == "tap" else "mtu 65520 ") in card


@every_guest
def test_metadata_services_are_never_reached(found: Found, wish: Wish) -> None:
    found.check(wish, METADATA_SERVICES)


@every_guest
def test_private_networks_are_reached_if_the_policy_is_open(found: Found, wish: Wish) -> None:
    found.check(wish, PRIVATE_SERVERS, PRIVATE_SERVERS if wish.egress == "open" else ())


@every_guest
def test_world_is_reached_as_the_policy_says(world: World, found: Found, wish: Wish) -> None:
    everything = [*WORLD_SERVERS, *PINGS, *NAMED]
    expected = {
        "none": [],
        LISTS: [f"tcp/{OTHER_SERVER}/80", f"tcp/{SERVER6}/80", f"ping/{SERVER6}/", f"name/{ONE_NAME}/80"],
    }.get(wish.egress, everything)
    found.check(wish, everything, expected if wish.network != "none" else ())
    arrived = b"".join(data for _, data in world.lab.servers.datagrams)
    assert (f"to-world-{wish.id}".encode() in arrived) is (f"tcp/{SERVER}/80" in expected and wish.network != "none")
    assert f"to-host-{wish.id}".encode() not in arrived


def test_name_that_is_not_allowed_is_refused_by_the_resolver(found: Found) -> None:
    (wish,) = (one for one in WISHES if one.egress == LISTS)
    assert "REFUSED" in found.answers[wish.id]["name/other.example/80"].words


def test_slirp_confines_nothing(found: Found) -> None:
    """What is documented, and that these questions are answered where nothing is in the way."""
    (wish,) = (one for one in WISHES if one.network == "slirp")
    hole = [f"tcp/{one}/80" for one in (SERVER, PRIVATE_SERVER, METADATA)]
    hole += [f"tcp/{HOST}/9000", "tcp/gateway/9000", "tcp/10.0.2.2/9001"]
    found.check(wish, hole, hole)


def test_without_pasta_only_an_open_policy_gets_a_network_and_is_told_what_that_means(world: World) -> None:
    home, wish = world.homes[ORDINARY], Wish(ORDINARY, "user", "open", 8006, "without-pasta")
    home.run("daemon", "stop").ok()
    hiding = ("unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$(command -v pasta)"; exec "$@"', "sh")
    bare = BangerHome(home.path, replace(home.cli, prefix=(*hiding, *home.cli.prefix)))
    try:
        listed = bare.run("vm", "run", "-d", "--egress", LISTS, "busybox")
        assert listed.code == 125
        assert "pasta is not installed" in listed.errors
        assert "apt-get install passt; or --egress open" in listed.errors
        started = _boot(World(world.lab, {ORDINARY: bare}), wish).ok()
        assert "this host's own services too" in started.errors
        shown = bare.run("vm", "show", wish.name).ok().text
        assert "slirp instead of user (pasta is not installed: apt-get install passt)" in shown
        answered = bare.run("vm", "exec", wish.name, "--", *reach.command(GATEWAYS)).ok().text
        assert reached(reach.answers(answered), GATEWAYS) == ["tcp/gateway/9000", "tcp/10.0.2.2/9001"]
    finally:
        bare.run("vm", "delete", "--force", wish.name)
        bare.run("daemon", "stop").ok()
