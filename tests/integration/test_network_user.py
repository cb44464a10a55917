"""What guests of the network ``user`` reach and what reaches them: nothing on the host's own network is changed."""

from __future__ import annotations

import base64
import os
import pickle
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import TapNic
from banger.core.wire.port_forward import PortForward
from banger.network.namespace.holder import find_holder
from banger.network.namespace.uplink import find_uplink
from banger.network.resolver import Resolver
from tests.support.apart_lab import ApartLab, needs_namespaces
from tests.support.daemon import NOBODY, as_ordinary_user, with_tun
from tests.support.netlab import (
    HOST,
    HOST6,
    METADATA,
    OTHER_SERVER,
    PRIVATE_SERVER,
    SERVER,
    SERVER6,
    WORLD,
    Guest,
    make_vm,
)
from tests.support.packets import ethernet, ipv4_udp
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_namespaces]

#: Of the host, on other interfaces than the one that leads out: as of a container engine, and one that is public.
BRIDGE, SECOND = "172.17.0.1", "203.0.113.77"


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[ApartLab]:
    with ExitStack() as stack:
        yield ApartLab(stack, tmp_path)


def test_guest_reaches_the_world_and_never_its_host_whatever_its_policy(apart: ApartLab) -> None:
    apart.host.run(f"ip link add other type bridge; ip link set other up; ip addr add {BRIDGE}/16 dev other")
    apart.host.run(f"ip addr add {SECOND}/32 dev lo; sysctl -qw net.ipv4.ping_group_range='0 2147483647'")
    for address in ("0.0.0.0", HOST6, "::1"):
        apart.servers.tcp(apart.host, address, 9000)
    apart.servers.udp(apart.host, "0.0.0.0", 9000)
    rules = apart.host.run("nft list ruleset; ip link; ip route; cat /proc/sys/net/ipv4/ip_forward")
    guest, sibling, public = apart.guest(1, egress="open"), apart.guest(2, egress="open"), apart.guest(3)
    apart.servers.tcp(sibling.namespace, "0.0.0.0", 80)
    apart.servers.tcp(sibling.namespace, sibling.address6, 80)

    everything = (SERVER, OTHER_SERVER, PRIVATE_SERVER, METADATA, SERVER6)
    reached = [[one for one in everything if who.namespace.reaches(one, 80)] for who in (guest, public)]
    assert reached == [[SERVER, OTHER_SERVER, PRIVATE_SERVER, SERVER6], [SERVER, OTHER_SERVER, SERVER6]]
    assert guest.namespace.fetch(SERVER, 80) == HOST
    assert guest.namespace.fetch(SERVER6, 80) == HOST6
    assert guest.namespace.hears(SERVER, 5000)
    assert guest.namespace.hears(SERVER6, 5000)
    for address in (SERVER, SERVER6):
        guest.namespace.run(f"busybox ping -c 1 -W 3 {address}")

    gateway6 = guest.given.network.gateway6  # type: ignore[union-attr]
    here = (HOST, BRIDGE, SECOND, guest.gateway, HOST6, gateway6)
    for who in (guest, public):
        assert [one for one in here if who.namespace.reaches(one, 9000) or who.namespace.hears(one, 9000, 0.2)] == []
    with pytest.raises(ConnectionRefusedError):  # an answer, not silence
        guest.namespace.fetch(HOST, 9000)
    assert not guest.namespace.reaches(sibling.address, 80)
    assert not guest.namespace.reaches(sibling.address6, 80)
    assert apart.host.reaches(HOST, 9000), "the host's own services are there"
    assert apart.host.run("nft list ruleset; ip link; ip route; cat /proc/sys/net/ipv4/ip_forward") == rules


def test_packets_for_the_hosts_loopback_are_lost(apart: ApartLab) -> None:
    guest = apart.guest(1, egress="open")
    apart.servers.udp(apart.host, "127.0.0.1", 9000)
    bridge_mac = apart.taps.run("cat /sys/class/net/bg*/address; ip -o link show type bridge").split("link/ether ")[-1]
    for address, port, data in (("127.0.0.1", 9000, b"loopback"), (SERVER, 5000, b"to show that packets arrive")):
        packet = ipv4_udp(guest.address, address, port, data)
        guest.namespace.send_frame(ethernet(bridge_mac.split()[0], guest.mac, 0x0800, packet))
    eventually(lambda: apart.servers.datagrams)
    assert [data for _, data in apart.servers.datagrams] == [b"to show that packets arrive"]


@pytest.mark.parametrize(
    ("egress", "reached"), [("none", []), (f"allow={SERVER6},198.51.100.16/28", [OTHER_SERVER, SERVER6])]
)
def test_egress_policy_holds_without_rights_on_the_host(apart: ApartLab, egress: str, reached: list[str]) -> None:
    guest = apart.guest(1, egress=egress)
    everything = (SERVER, OTHER_SERVER, PRIVATE_SERVER, METADATA, SERVER6)
    assert [address for address in everything if guest.namespace.reaches(address, 80)] == reached


def test_published_ports_lead_into_the_namespace(apart: ApartLab) -> None:
    ports = (
        PortForward(80, 8080),
        PortForward(80, 8081, HOST),
        PortForward(80, 8082, "::1"),
        PortForward(5000, 5000, protocol="udp"),
    )
    guest = apart.guest(1, ports=ports)
    apart.servers.tcp(guest.namespace, "127.0.0.1", 80)
    apart.servers.udp(guest.namespace, "0.0.0.0", 5000)
    assert guest.given.address == "127.0.0.1"
    assert apart.host.reaches("127.0.0.1", 8080)
    assert apart.host.reaches("::1", 8082)
    assert not apart.host.reaches(HOST, 8080)
    assert apart.world.reaches(HOST, 8081)
    assert apart.host.hears("127.0.0.1", 5000)
    apart.clean(make_vm(1, "user", ports=ports))
    assert apart.ledgers[apart.own].all() == []


def test_what_is_made_goes_with_the_last_vm(apart: ApartLab) -> None:
    first, second = make_vm(1, "user"), make_vm(2, "user")
    for vm in (first, second):
        apart.prepare(vm)
    assert {kind for kind, *_ in apart.objects()} == {"netns", "pasta", "tap", "bridge", "nft"}
    apart.clean(first)
    assert find_holder(apart.own) is not None
    apart.clean(second, first)
    assert apart.objects() == []
    assert (find_holder(apart.own), find_uplink(apart.own)) == (None, None)


def test_restarted_daemon_finds_the_namespace_and_brings_a_lost_uplink_back(apart: ApartLab) -> None:
    guest = apart.guest(1)
    assert guest.namespace.reaches(SERVER, 80)
    before = find_holder(apart.own)
    lost = find_uplink(apart.own)
    assert lost is not None
    os.kill(lost.pid, signal.SIGKILL)
    os.waitpid(lost.pid, 0)
    assert not guest.namespace.reaches(SERVER, 80, 0.5)
    apart.network = apart.installation(apart.own)
    apart.refresh()
    assert find_holder(apart.own) == before
    assert guest.namespace.reaches(SERVER, 80)


def test_vms_have_a_network_again_after_the_holder_was_killed(apart: ApartLab) -> None:
    apart.guest(1)
    holder = find_holder(apart.own)
    assert holder is not None
    os.kill(holder.pid, signal.SIGKILL)
    os.waitpid(holder.pid, 0)
    apart.refresh()
    assert apart.guest(2).namespace.reaches(SERVER, 80)
    apart.clean(make_vm(1, "user"), make_vm(2, "user"))
    assert apart.objects() == []
    assert (find_holder(apart.own), find_uplink(apart.own)) == (None, None)


def test_crash_before_the_first_vm_leaves_nothing_for_long(apart: ApartLab) -> None:
    with apart.host.entered():
        apart.places[0].open()
    apart.network = apart.installation(apart.own)
    apart.refresh()
    assert (find_holder(apart.own), find_uplink(apart.own)) == (None, None)


def test_host_without_a_way_out_has_vms_all_the_same(apart: ApartLab) -> None:
    apart.host.run("ip route del default; ip -6 route del default")
    guest = apart.guest(1)
    assert not guest.namespace.reaches(SERVER, 80, 0.3)
    apart.host.run(f"ip route add default via {WORLD}")
    apart.refresh()
    assert guest.namespace.reaches(SERVER, 80)


def test_resolver_hears_the_guests_of_the_namespace(apart: ApartLab) -> None:
    apart.resolver = Resolver(None, follows_names=True)
    guest, silent = apart.guest(1), apart.guest(2, egress="none")
    with apart.host.entered():
        server = apart.places[0].socket(2, 2)
    with server:
        server.bind((guest.gateway, 53))
        server.settimeout(5)
        with guest.namespace.socket(2, 2) as client:
            client.sendto(b"?", (guest.gateway, 53))
            data, peer = server.recvfrom(100)
        assert (data, peer[0]) == (b"?", guest.address)
        assert not silent.namespace.hears(silent.gateway, 53, 0.2)


def test_vmm_is_started_where_its_tap_is(apart: ApartLab) -> None:
    given = apart.prepare(make_vm(1, "user"))
    (nic,) = given.devices
    assert isinstance(nic, TapNic)
    assert nic.tap in apart.host.run(" ".join((*nic.entering, "ip", "-o", "link")))
    assert nic.tap not in apart.host.run("ip -o link")


def test_names_are_not_allowed_without_the_resolver(apart: ApartLab) -> None:
    with pytest.raises(BangerError) as caught:
        apart.prepare(make_vm(1, "user", egress="allow-names=server.example"))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


@pytest.fixture
def ordinary(apart: ApartLab, session_root: Path) -> Iterator[Callable[[str], Guest]]:
    """Gives guests, by their policy, of a user who is not root, on a host where everybody may open ``/dev/net/tun``."""
    with tempfile.TemporaryDirectory(dir=session_root) as directory:
        place = Path(directory)
        place.chmod(0o777)
        command = as_ordinary_user(session_root, "-m", "tests.support.ordinary_network", directory, apart.own)
        words = [*with_tun(session_root), *command]
        with apart.host.entered():
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

        def guest(egress: str) -> Guest:
            assert process.stdin
            assert process.stdout
            print(egress, file=process.stdin, flush=True)
            given = pickle.loads(base64.b64decode(process.stdout.readline()))
            return Guest(apart.stack, apart.taps, given)

        with process:
            yield guest
            assert process.stdin
            process.stdin.close()
            assert process.wait(20) == 0


def test_ordinary_users_guests_are_confined_as_roots_are(apart: ApartLab, ordinary: Callable[[str], Guest]) -> None:
    for address in ("0.0.0.0", HOST6):
        apart.servers.tcp(apart.host, address, 9000)
    apart.servers.udp(apart.host, "127.0.0.1", 9001)
    guests = {egress: ordinary(egress) for egress in ("public", "open", f"allow={SERVER}", "none")}
    everything = (SERVER, OTHER_SERVER, PRIVATE_SERVER, METADATA, SERVER6)
    reached = {
        egress: [one for one in everything if guest.namespace.reaches(one, 80)] for egress, guest in guests.items()
    }
    assert reached == {
        "public": [SERVER, OTHER_SERVER, SERVER6],
        "open": [SERVER, OTHER_SERVER, PRIVATE_SERVER, SERVER6],
        f"allow={SERVER}": [SERVER],
        "none": [],
    }
    guest, sibling = guests["open"], guests["public"]
    assert guest.namespace.hears(SERVER, 5000)
    assert guest.namespace.hears(SERVER6, 5000)
    apart.servers.tcp(sibling.namespace, "0.0.0.0", 80)
    here = [(HOST, 9000), (HOST6, 9000), (guest.gateway, 9000), (sibling.address, 80)]
    assert [one for one in here if guest.namespace.reaches(*one)] == []
    assert Path(f"/proc/{apart.taps.pid}").stat().st_uid == NOBODY
