"""The resolver with real sockets: on loopback for the host, in a network namespace for guests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.dns.model import DnsSettings, NameServer
from banger.dns.service import MOST_REQUESTS_OF_ONE, DnsService
from tests.support.dns import FakeNameServer, FakeWorld, Respond, answer_with, name_server, records
from tests.support.netns import in_network_namespace, why_no_namespace

LOOPBACK = NameServer("127.0.0.1", 0)
EXAMPLE = "example.org. 300 A 198.51.100.1"
needs_namespace = pytest.mark.skipif(bool(why_no_namespace()), reason=why_no_namespace())


@contextmanager
def resolver(fake: FakeWorld, resolv_conf: Path = Path("/nonexistent"), **settings: object) -> Iterator[DnsService]:
    service = DnsService(DnsSettings(**{"listen": LOOPBACK, **settings}), fake.world(), resolv_conf)  # type: ignore[arg-type]
    service.start()
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture
def fake() -> FakeWorld:
    return FakeWorld({"web": ["10.7.0.2"]})


Ask = Callable[..., dns.message.Message]


def asking(server: NameServer) -> Ask:
    def ask(name: str, rdtype: str = "A", *, tcp: bool = False, source: str | None = None) -> dns.message.Message:
        send = dns.query.tcp if tcp else dns.query.udp
        return send(dns.message.make_query(name, rdtype), server.address, 10, server.port, source)

    return ask


def told(response: dns.message.Message) -> list[str]:
    assert response.rcode() == dns.rcode.NOERROR, response
    return [str(record) for rrset in response.answer for record in rrset]


# -- for programs of the host ------------------------------------------------------------------------------


def test_name_of_a_vm_is_answered_over_both_transports(fake: FakeWorld) -> None:
    with resolver(fake) as service:
        ask = asking(service.listening[0])
        assert told(ask("web.vm")) == ["10.7.0.2"]
        assert told(ask("web.vm", tcp=True)) == ["10.7.0.2"]
        fake.vms["new"] = ["10.7.0.3"]
        assert told(ask("new.vm")) == ["10.7.0.3"]
    with pytest.raises(OSError), socket.create_connection(service_address(ask), timeout=1):  # noqa: PT011
        pass


def service_address(ask: Ask) -> tuple[str, int]:
    (server,) = (cell.cell_contents for cell in ask.__closure__ or ())  # type: ignore[attr-defined]
    return (server.address, server.port)


def test_c_library_is_not_needed_to_ask_several_questions_over_one_connection(fake: FakeWorld) -> None:
    with resolver(fake) as service, socket.create_connection(service.listening[0], timeout=10) as connection:
        for name in ("web.vm", "none.vm", "WEB.vm"):
            query = dns.message.make_query(name, "A")
            dns.query.send_tcp(connection, query)
            response, _ = dns.query.receive_tcp(connection, time.time() + 10)
            assert query.is_response(response)


def test_taken_port_is_replaced_by_a_free_one(fake: FakeWorld) -> None:
    with resolver(fake) as first, resolver(fake, listen=first.listening[0]) as second:
        assert second.listening
        assert second.listening != first.listening
        for service in (first, second):
            assert told(asking(service.listening[0])("web.vm")) == ["10.7.0.2"]


def test_port_of_udp_alone_being_taken_is_seen_too(fake: FakeWorld) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = NameServer(*other.getsockname())
        with resolver(fake, listen=taken) as service:
            assert service.listening[0].port != taken.port


def test_resolver_that_may_not_listen_for_the_host_runs_for_guests(fake: FakeWorld) -> None:
    with resolver(fake, listen=None) as service:
        assert service.listening == ()
        service.listen_on("127.0.0.2", 0)
        assert len(service.listening) == 1


def test_resolver_can_be_stopped_twice_and_started_again(fake: FakeWorld) -> None:
    service = DnsService(DnsSettings(listen=LOOPBACK), fake.world())
    service.stop()
    service.start()
    service.stop()
    service.stop()
    service.start()
    assert told(asking(service.listening[0])("web.vm")) == ["10.7.0.2"]
    service.stop()
    with pytest.raises(BangerError, match="does not run"):
        service.listen_on("127.0.0.1", 0)


def test_address_that_the_host_does_not_have_is_a_clear_error(fake: FakeWorld) -> None:
    with resolver(fake) as service:
        with pytest.raises(BangerError, match=r"cannot answer names at 192\.0\.2\.1:53") as caught:
            service.listen_on("192.0.2.1")
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        taken = service.listening[0]
        with resolver(fake) as other, pytest.raises(BangerError) as conflict:
            other.listen_on(*taken)
        assert conflict.value.kind is ErrorKind.CONFLICT
        assert f"sport = {taken.port}" in conflict.value.hint


def test_nonsense_from_the_network_does_not_end_it(fake: FakeWorld) -> None:
    with resolver(fake) as service:
        server = service.listening[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for size in (0, 1, 11, 12, 13, 500, 60000):
                sender.sendto(b"\x00" * size, server)
                sender.sendto(b"\xc0" * size, server)
        for data in (b"", b"\0", b"\xff\xff", b"\0\0", b"\0\x0c" + b"\0" * 12):
            with socket.create_connection(server, timeout=10) as connection:
                connection.sendall(data)
        assert told(asking(server)("web.vm")) == ["10.7.0.2"]


def test_connections_of_one_asker_are_bounded_and_others_go_on(fake: FakeWorld) -> None:
    with resolver(fake) as service:
        server = service.listening[0]
        idle = [socket.create_connection(server, timeout=10) for _ in range(40)]
        try:
            assert told(asking(server)("web.vm", tcp=True, source="127.0.0.9")) == ["10.7.0.2"]
            with pytest.raises((OSError, EOFError)):
                asking(server)("web.vm", tcp=True, source="127.0.0.1")
        finally:
            for connection in idle:
                connection.close()


# -- other names -------------------------------------------------------------------------------------------


@contextmanager
def forwarding(fake: FakeWorld, *responds: Respond) -> Iterator[tuple[Ask, list[FakeNameServer]]]:
    """A resolver that forwards for the host, to as many name servers."""
    with name_server(responds[0]) as first, name_server(responds[-1]) as last:
        servers = [first, last][: len(responds)]
        upstream = tuple(server.server for server in servers)
        with resolver(fake, upstream=upstream, host_forwards=True) as service:
            yield asking(service.listening[0]), servers


def test_other_name_is_asked_upstream_with_a_random_id_from_a_random_port(fake: FakeWorld) -> None:
    with forwarding(fake, answer_with(EXAMPLE)) as (ask, (server,)):
        for _ in range(8):
            assert told(ask("example.org")) == ["198.51.100.1"]
        assert len({port for _, _, port in server.asked}) > 4
        assert len({query.id for query, _, _ in server.asked}) > 4
        assert {query.question[0].name.to_text() for query, _, _ in server.asked} == {"example.org."}
        ask("web.vm")
        ask("none.vm")
        assert len(server.asked) == 8, "a name of a VM left the host"


def test_truncated_answer_is_asked_for_again_over_tcp(fake: FakeWorld) -> None:
    many = [f"example.org. 300 A 198.51.100.{i}" for i in range(1, 200)]

    def respond(query: dns.message.Message, tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        if tcp:
            response.answer = records(*many)
        else:
            response.flags |= dns.flags.TC
        return [response.to_wire(max_size=65535)]

    with forwarding(fake, respond) as (ask, (server,)):
        assert len(told(ask("example.org", tcp=True))) == 199
        assert [transport for _, transport, _ in server.asked] == ["udp", "tcp"]


def test_answers_that_belong_to_another_question_are_not_believed(fake: FakeWorld) -> None:
    def respond(query: dns.message.Message, _tcp: bool) -> list[bytes]:
        evil = records("example.org. 300 A 203.0.113.66")
        wrong_id = dns.message.make_response(query)
        wrong_id.id = (query.id + 1) % 65536
        wrong_name = dns.message.make_response(dns.message.make_query("example.net", "A", id=query.id))
        wrong_type = dns.message.make_response(dns.message.make_query("example.org", "AAAA", id=query.id))
        no_answer = dns.message.make_query("example.org", "A", id=query.id)
        for message in (wrong_id, wrong_name, wrong_type, no_answer):
            message.answer = evil
        lies = [message.to_wire() for message in (wrong_id, wrong_name, wrong_type, no_answer)]
        return [*lies, b"", b"\0" * 40, *answer_with(EXAMPLE)(query, False)]

    with forwarding(fake, respond) as (ask, _):
        assert told(ask("example.org")) == ["198.51.100.1"]


@pytest.mark.parametrize("first", ["silent", "dead", "failing"])
def test_next_server_is_asked_if_one_does_not_help_and_is_remembered(fake: FakeWorld, first: str) -> None:
    def failing(query: dns.message.Message, _tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        return [response.to_wire()] if first == "failing" else []

    with name_server(failing) as bad, name_server(answer_with(EXAMPLE)) as good:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            nobody = NameServer(*probe.getsockname())
        upstream = (nobody if first == "dead" else bad.server, good.server)
        with resolver(fake, upstream=upstream, host_forwards=True) as service:
            ask = asking(service.listening[0])
            assert told(ask("example.org")) == ["198.51.100.1"]
            assert told(ask("example.org")) == ["198.51.100.1"]
        assert len(bad.asked) == (0 if first == "dead" else 1)


def test_name_that_does_not_exist_is_told_so_and_not_asked_for_again(fake: FakeWorld) -> None:
    def respond(query: dns.message.Message, _tcp: bool) -> list[bytes]:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire()]

    with forwarding(fake, respond, answer_with(EXAMPLE)) as (ask, servers):
        assert ask("example.org").rcode() == dns.rcode.NXDOMAIN
        assert [len(server.asked) for server in servers] == [1, 0]


def test_no_server_answering_is_a_failure_before_programs_give_up(fake: FakeWorld) -> None:
    with forwarding(fake, lambda _query, _tcp: []) as (ask, _):
        started = time.monotonic()
        assert ask("example.org").rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - started < 5


def test_one_impatient_asker_does_not_keep_others_waiting(fake: FakeWorld) -> None:
    held = threading.Event()

    def respond(query: dns.message.Message, _tcp: bool) -> list[bytes]:
        return answer_with(EXAMPLE)(query, False) if held.is_set() else []

    with forwarding(fake, respond) as (ask, (server,)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            for _ in range(4 * MOST_REQUESTS_OF_ONE):
                flood.sendto(dns.message.make_query("example.org", "A").to_wire(), service_address(ask))
            assert told(ask("web.vm", source="127.0.0.9")) == ["10.7.0.2"]
            held.set()
            assert told(ask("example.org", source="127.0.0.9")) == ["198.51.100.1"]
        assert len(server.asked) <= 2 * MOST_REQUESTS_OF_ONE + 1


def test_servers_of_resolv_conf_are_read_again_when_the_file_changes(fake: FakeWorld, tmp_path: Path) -> None:
    from banger.dns.resolv_conf import ResolvConf

    file = tmp_path / "resolv.conf"
    file.write_text(
        "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver bogus\n nameserver ::1 \nnameserver\n"
    )
    conf = ResolvConf(file)
    assert list(conf.servers()) == [NameServer("192.0.2.1"), NameServer("::1")]
    file.write_text("nameserver 192.0.2.2\n")
    assert list(conf.servers()) == [NameServer("192.0.2.2")]
    file.unlink()
    assert list(conf.servers()) == []
    file.write_text("nameserver 192.0.2.3\n" * 9)
    assert len(conf.servers()) == 3


# -- for guests --------------------------------------------------------------------------------------------


@needs_namespace
@pytest.mark.root
@pytest.mark.parametrize(("bridge", "guest"), [("10.7.0.1", "10.7.0.2"), ("fd00:7::1", "fd00:7::2")])
def test_guest_on_a_bridge_is_answered_at_the_bridges_address(fake: FakeWorld, bridge: str, guest: str) -> None:
    fake.add_guest(guest, "example.org")
    fake.vms["web"] = [guest]

    def work() -> None:
        with name_server(answer_with(EXAMPLE)) as server, resolver(fake, upstream=(server.server,)) as service:
            service.listen_on(bridge)
            service.listen_on(bridge)
            assert [str(address) for address in service.listening[1:]] == [str(NameServer(bridge, 53))]
            ask = asking(NameServer(bridge, 53))
            rdtype = "AAAA" if ":" in guest else "A"
            for tcp in (False, True):
                assert told(ask("web.vm", rdtype, tcp=tcp, source=guest)) == [guest]
                assert told(ask("example.org", tcp=tcp, source=guest)) == ["198.51.100.1"]
                assert ask("example.net", tcp=tcp, source=guest).rcode() == dns.rcode.REFUSED
                assert ask("example.org", tcp=tcp, source=bridge).rcode() == dns.rcode.REFUSED  # a program of the host
            assert [addresses for _, addresses, _ in fake.opened] == [("198.51.100.1",)] * 2

    in_network_namespace(work, f"{bridge}/{64 if ':' in bridge else 24}", f"{guest}/{64 if ':' in guest else 24}")


@needs_namespace
@pytest.mark.root
def test_stranger_in_the_network_of_a_bridge_is_refused(fake: FakeWorld) -> None:
    def work() -> None:
        with resolver(fake) as service:
            service.listen_on("10.7.0.1")
            for name in ("web.vm", "example.org"):
                assert asking(NameServer("10.7.0.1"))(name, source="10.7.0.9").rcode() == dns.rcode.REFUSED

    in_network_namespace(work, "10.7.0.1/24", "10.7.0.9/24")


@needs_namespace
@pytest.mark.root
def test_resolver_of_the_host_that_is_this_one_is_not_asked_in_circles(fake: FakeWorld, tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.1\n")

    def work() -> None:
        with resolver(fake, resolv_conf, listen=NameServer("127.0.0.1"), host_forwards=True) as service:
            started = time.monotonic()
            assert asking(service.listening[0])("example.org").rcode() == dns.rcode.SERVFAIL
            assert time.monotonic() - started < 3  # asked in circles, it takes the whole time-out

    in_network_namespace(work)
