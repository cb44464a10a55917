"""What this host reaches is found out truly: its routes, its name servers, and the listener that guests connect to."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address, ip_address

import pytest

from banger.checkup import hostside
from banger.checkup.leftovers import count, left_behind, switched
from banger.checkup.probe_server import ProbeServer
from tests.support.waiting import eventually

TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""


def test_default_route_is_the_one_with_the_smallest_metric() -> None:
    assert hostside.parse_routes(TABLE) == (IPv4Address("192.0.2.1"), "eth0")


@pytest.mark.parametrize("table", ["", "Iface\n", "Iface\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n", "x\ny"])
def test_host_without_a_default_route_has_none(table: str) -> None:
    assert hostside.parse_routes(table) is None


def test_route_without_a_router_is_none_that_leads_on() -> None:
    assert hostside.parse_routes("Iface\ntun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n") is None


def test_loopback_has_a_size_and_an_unknown_interface_none() -> None:
    assert hostside.mtu_of("lo") > 1000
    assert hostside.mtu_of("no-such-card") == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", ["192.0.2.53", "2001:db8::53"]),
        ("# nameserver 192.0.2.1\nsearch example.org\n\tnameserver\t192.0.2.2 \n", ["192.0.2.2"]),
        ("nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n", ["fe80::1"]),
        ("", []),
    ],
)
def test_name_servers_are_read_as_resolv_conf_has_them(text: str, found: list[str]) -> None:
    assert hostside.parse_nameservers(text) == [ip_address(one) for one in found]


@contextmanager
def _udp(answer: bytes | None) -> Iterator[int]:
    """A server that answers one question with ``answer`` behind the question's id, or not at all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            question, address = server.recvfrom(2000)
            if answer is not None:
                server.sendto(question[:2] + answer, address)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


REFUSED = b"\x81\x85" + bytes(8)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [(REFUSED, True), (b"\x81\x80" + bytes(8), True), (b"\x01\x00" + bytes(8), False), (b"\x81", False), (None, False)],
)
def test_any_answer_of_a_name_server_counts_and_nothing_else(answer: bytes | None, counts: bool) -> None:
    server = ip_address("127.0.0.1")
    with _udp(answer) as port:
        assert hostside.answering([server], 0.3, port) == ([server] if counts else [])


def test_connection_tells_why_it_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert hostside.reaches("127.0.0.1", port) == ""
    assert hostside.reaches("127.0.0.1", port) == "Connection refused"


def _request(listener: ProbeServer, line: str, data: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", listener.port), 5) as client:
        client.sendall(line.encode() + b"\n" + data)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_listener_serves_whoever_knows_the_word() -> None:
    with ProbeServer() as listener:
        assert _request(listener, f"{listener.word} hello") == b"hello\n"
        sent = _request(listener, f"{listener.word} send 300000")
        assert hashlib.sha256(sent).hexdigest() == listener.digest_of(300000)
        taken = _request(listener, f"{listener.word} take 300000", sent)
        assert taken.decode().strip() == listener.digest_of(300000)


@pytest.mark.parametrize("line", ["", "guess hello", "x" * 500, "é hello"])
def test_listener_says_nothing_to_strangers(line: str) -> None:
    with ProbeServer() as listener, suppress(ConnectionResetError):  # it hangs up before it has read all
        assert _request(listener, line) == b""


@pytest.mark.parametrize(
    "wanted", ["send 1048577", "send 99999999999999999999", "take 99999999999", "send ²", "send -1"]
)
def test_listener_gives_a_guest_that_knows_the_word_no_more_than_a_mebibyte(wanted: str) -> None:
    with ProbeServer() as listener, suppress(ConnectionResetError):
        assert _request(listener, f"{listener.word} {wanted}") == b""


def test_listener_serves_few_at_a_time_and_goes_on_when_they_leave() -> None:
    with ProbeServer() as listener, ExitStack() as held:
        for _ in range(16):
            held.enter_context(socket.create_connection(("127.0.0.1", listener.port), 5))

        def is_hung_up_on() -> bool:
            with suppress(OSError):  # reset, a broken pipe, or not connected any more: as far as it came
                return _request(listener, f"{listener.word} hello") == b""
            return True

        eventually(is_hung_up_on, what="all places taken")
        held.close()
        eventually(lambda: not is_hung_up_on(), what="a free place")


def test_listener_is_gone_afterwards() -> None:
    with ProbeServer() as listener:
        port = listener.port
    assert hostside.reaches("127.0.0.1", port) == "Connection refused"


VM_ID, INSTALLATION = "fedcba987654", "0123456789ab"
NOTHING: dict[str, frozenset[str]] = {
    kind: frozenset() for kind in ("object", "process", "interface", "packet filter", "directory", "setting")
}


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("object", "tap anything that the daemon calls a leak"),
        ("process", f"77 banger-vm-{VM_ID}"),
        ("interface", "bt012345fedcba9"),
        ("interface", "bg0123456789ab"),
        ("packet filter", "table inet banger_0123456789ab"),
        ("directory", f"/data/vms/{VM_ID}"),
    ],
)
def test_what_carries_a_mark_of_ours_is_left_behind(kind: str, thing: str) -> None:
    after = {**NOTHING, kind: frozenset({thing})}
    assert left_behind(NOTHING, after, [VM_ID], INSTALLATION, others=False) == [f"{kind} {thing}"]
    assert left_behind(after, after, [VM_ID], INSTALLATION, others=False) == []


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("process", "78 banger-vm-0000000000ff"),
        ("interface", "docker0"),
        ("interface", "bt012345aaaaaaa"),
        ("packet filter", "table inet banger_ffffffffffff"),
        ("setting", "net.ipv4.ip_forward = 1"),
    ],
)
def test_what_others_do_meanwhile_is_not_ours(kind: str, thing: str) -> None:
    after = {**NOTHING, kind: frozenset({thing})}
    assert left_behind(NOTHING, after, [VM_ID], INSTALLATION, others=False) == []


def test_bridge_that_other_vms_use_stays() -> None:
    after = {**NOTHING, "interface": frozenset({"bg0123456789ab"})}
    assert left_behind(NOTHING, after, [VM_ID], INSTALLATION, others=True) == []


def test_switched_settings_are_told() -> None:
    after = {**NOTHING, "setting": frozenset({"net.ipv4.ip_forward = 1"})}
    assert switched({**NOTHING, "setting": frozenset({"net.ipv4.ip_forward = 0"})}, after) == [
        "net.ipv4.ip_forward = 1"
    ]
    assert count(after) == 1
