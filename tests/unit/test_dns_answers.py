"""Questions and their answers, without a socket: names of VMs, policies of guests, nonsense."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.dns.answerer import Answerer
from banger.dns.opening import GRACE_S, LONGEST_S, SHORTEST_S, opening_of
from banger.dns.zone import TTL_S, Zone
from tests.support.dns import FakeWorld, records

HOST, GUEST, STRANGER = "127.0.0.1", "10.7.0.2", "192.0.2.7"


class FakeUpstream:
    """Knows every name; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = [*records("example.org. 300 A 198.51.100.1")]
        self.silent = False

    async def ask(self, query: dns.message.Message) -> dns.message.Message | None:
        self.asked.append(query.question[0].name.to_text())
        response = dns.message.make_response(query)
        response.answer = list(self.answer)
        return None if self.silent else response


class Inline(Executor):
    """Runs what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # as a pool does
            done.set_exception(error)
        return done


class Desk:
    """An answerer and everything around it."""

    def __init__(self, *, host_forwards: bool = False) -> None:
        self.fake = FakeWorld({"web": ["10.7.0.2", "fd00::2"], "local": ["127.0.0.1"], "bare": []})
        self.upstream = FakeUpstream()
        self.answerer = Answerer(
            Zone("vm"), self.fake.world(), self.upstream, Inline(), lambda: {"10.7.0.1"}, host_forwards=host_forwards
        )

    def send(self, wire: bytes, source: str = HOST, *, tcp: bool = False) -> bytes | None:
        return asyncio.run(self.answerer.answer(wire, source, tcp=tcp))

    def ask(self, name: str, rdtype: str = "A", source: str = HOST, **options: object) -> dns.message.Message:
        query = dns.message.make_query(name, rdtype, **options)
        wire = self.send(query.to_wire(), source)
        assert wire is not None
        response = dns.message.from_wire(wire)
        assert query.is_response(response)
        return response


@pytest.fixture
def desk() -> Desk:
    return Desk()


def told(response: dns.message.Message) -> list[str]:
    return [str(record) for rrset in response.answer for record in rrset]


def rcode(response: dns.message.Message) -> str:
    return dns.rcode.to_text(response.rcode())


# -- names of VMs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        ("web.vm", "A", ["10.7.0.2"]),
        ("WEB.Vm.", "A", ["10.7.0.2"]),
        ("web.vm", "AAAA", ["fd00::2"]),
        ("web.vm", "ANY", ["10.7.0.2", "fd00::2"]),
        ("2.0.7.10.in-addr.arpa", "PTR", ["web.vm."]),
        (dns.reversename.from_address("fd00::2").to_text().upper(), "PTR", ["web.vm."]),
    ],
)
def test_name_of_a_running_vm_is_answered_for_a_short_time(
    desk: Desk, name: str, rdtype: str, expected: list[str]
) -> None:
    response = desk.ask(name, rdtype)
    assert (rcode(response), told(response)) == ("NOERROR", expected)
    assert response.flags & dns.flags.AA
    assert {rrset.ttl for rrset in response.answer} == {TTL_S}


@pytest.mark.parametrize(
    "name", ["none.vm", "a.web.vm", "1web.vm", r"we\.b.vm", r"web\000.vm", "wéb.vm", "x" * 60 + ".vm"]
)
def test_name_that_no_vm_has_does_not_exist(desk: Desk, name: str) -> None:
    response = desk.ask(name)
    assert (rcode(response), told(response)) == ("NXDOMAIN", [])
    assert response.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(("name", "rdtype"), [("local.vm", "AAAA"), ("bare.vm", "A"), ("web.vm", "MX"), ("vm", "A")])
def test_name_without_such_a_record_is_answered_with_nothing(desk: Desk, name: str, rdtype: str) -> None:
    response = desk.ask(name, rdtype)
    assert (rcode(response), told(response)) == ("NOERROR", [])
    assert response.authority[0].rdtype == dns.rdatatype.SOA


def test_name_that_only_ends_like_the_suffix_is_foreign(desk: Desk) -> None:
    assert rcode(desk.ask("web.notvm")) == "REFUSED"
    assert rcode(desk.ask("web.vm.example.org")) == "REFUSED"


def test_loopback_address_of_the_host_is_not_told_to_a_guest(desk: Desk) -> None:
    desk.fake.add_guest(GUEST)
    assert told(desk.ask("local.vm")) == ["127.0.0.1"]
    assert told(desk.ask("local.vm", source=GUEST)) == []
    assert told(desk.ask("web.vm", source=GUEST)) == ["10.7.0.2"]


@pytest.mark.parametrize(
    "name",
    ["x.2.0.7.10.in-addr.arpa", "0.7.10.in-addr.arpa", "02.0.7.10.in-addr.arpa", r"2\.0.7.10.in-addr.arpa", "in-addr.arpa",
     "ip6.arpa", "20." + "0." * 30 + "ip6.arpa", "2.0.7.10.ip6.arpa"],
)  # fmt: skip
def test_reverse_name_that_is_no_address_is_foreign(desk: Desk, name: str) -> None:
    assert rcode(desk.ask(name, "PTR")) == "REFUSED"


# -- who may ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [HOST, "127.9.9.9", "::1", "10.7.0.1"])
def test_host_program_is_answered_names_of_vms_only(desk: Desk, source: str) -> None:
    assert told(desk.ask("web.vm", source=source)) == ["10.7.0.2"]
    response = desk.ask("example.org", source=source, use_edns=0)
    assert (rcode(response), desk.upstream.asked) == ("REFUSED", [])
    (option,) = response.options
    assert isinstance(option, dns.edns.EDEOption)
    assert "dns.host_names" in str(option.text)


def test_host_program_is_answered_all_names_if_so_configured() -> None:
    assert told(Desk(host_forwards=True).ask("example.org")) == ["198.51.100.1"]


@pytest.mark.parametrize("name", ["web.vm", "example.org", "2.0.7.10.in-addr.arpa"])
def test_stranger_is_answered_nothing(name: str) -> None:
    desk = Desk(host_forwards=True)
    assert rcode(desk.ask(name, source=STRANGER)) == "REFUSED"
    assert desk.upstream.asked == []


def test_guest_without_a_list_is_answered_every_name_and_nothing_is_opened(desk: Desk) -> None:
    desk.fake.add_guest(GUEST, limited=False)
    assert told(desk.ask("example.org", source=GUEST)) == ["198.51.100.1"]
    assert desk.fake.opened == []


# -- names that a guest may look up ------------------------------------------------------------------------


def test_name_on_the_list_is_opened_before_it_is_answered(desk: Desk) -> None:
    desk.fake.add_guest(GUEST, "example.org")
    desk.upstream.answer = records(
        "example.org. 600 CNAME cdn.example.net.", "CDN.example.net. 120 CNAME b.example.net.",
        "b.example.net. 900 A 198.51.100.7", "b.example.net. 900 AAAA 2001:db8::7", "evil.example.net. 900 A 198.51.100.8",
    )  # fmt: skip
    response = desk.ask("Example.ORG", source=GUEST)
    assert rcode(response) == "NOERROR"
    assert desk.fake.opened == [("g", ("198.51.100.7", "2001:db8::7"), 120 + GRACE_S)]


def test_answer_is_held_back_until_the_way_is_open(desk: Desk) -> None:
    desk.fake.add_guest(GUEST, "example.org")
    order: list[str] = []
    desk.fake.on_open = lambda: order.append("opened")
    desk.ask("example.org", source=GUEST)
    assert order == ["opened"]

    def fail() -> None:
        raise BangerError(ErrorKind.UNAVAILABLE, "no firewall")

    desk.fake.on_open = fail
    response = desk.ask("example.org", source=GUEST)
    assert (rcode(response), told(response)) == ("SERVFAIL", [])


@pytest.mark.parametrize("name", ["example.net", "www.example.org", r"example\.org", r"x.pypi\.org"])
def test_name_beside_the_list_is_refused_and_asked_nowhere(desk: Desk, name: str) -> None:
    desk.fake.add_guest(GUEST, "example.org", "*.pypi.org")
    assert rcode(desk.ask(name, source=GUEST)) == "REFUSED"
    assert (desk.upstream.asked, desk.fake.opened) == ([], [])


def test_guest_with_an_empty_list_still_knows_the_names_of_vms(desk: Desk) -> None:
    desk.fake.add_guest(GUEST)
    assert rcode(desk.ask("example.org", source=GUEST)) == "REFUSED"
    assert told(desk.ask("web.vm", source=GUEST)) == ["10.7.0.2"]


def test_records_that_carry_addresses_beside_are_not_there_for_a_limited_guest(desk: Desk) -> None:
    desk.fake.add_guest(GUEST, "example.org")
    desk.upstream.answer = records("example.org. 300 HTTPS 1 . ipv4hint=198.51.100.9")
    response = desk.ask("example.org", "HTTPS", source=GUEST)
    assert (rcode(response), told(response)) == ("NOERROR", [])


def test_nobody_may_remember_an_answer_longer_than_its_way_is_open(desk: Desk) -> None:
    desk.fake.add_guest(GUEST, "example.org")
    desk.upstream.answer = records("example.org. 864000 A 198.51.100.1")
    response = desk.ask("example.org", source=GUEST)
    assert response.answer[0].ttl == LONGEST_S
    assert desk.fake.opened == [("g", ("198.51.100.1",), LONGEST_S + GRACE_S)]


def opened(*lines: str) -> tuple[tuple[str, ...], int] | None:
    question = dns.message.make_query("example.org", "A").question[0]
    opening = opening_of(question, records(*lines))
    return (opening.addresses, opening.lifetime_s) if opening else None


def test_short_lived_answer_is_open_long_enough_to_connect() -> None:
    assert opened("example.org. 0 A 198.51.100.1") == (("198.51.100.1",), SHORTEST_S + GRACE_S)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "ff02::1",
     "::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "::127.0.0.1"],
)  # fmt: skip
def test_address_that_is_no_service_elsewhere_is_never_opened(address: str) -> None:
    rdtype = "AAAA" if ":" in address else "A"
    assert opened(f"example.org. 300 {rdtype} {address}") is None


@pytest.mark.parametrize("address", ["198.51.100.1", "10.1.2.3", "2001:db8::1", "64:ff9b::198.51.100.1"])
def test_address_of_a_service_is_opened(address: str) -> None:
    rdtype = "AAAA" if ":" in address else "A"
    found = opened(f"example.org. 300 {rdtype} {address}")
    assert found is not None
    assert ipaddress.ip_address(found[0][0]) == ipaddress.ip_address(address)


def test_circle_of_aliases_opens_nothing() -> None:
    assert opened("example.org. 9 CNAME b.example.", "b.example. 9 CNAME example.org.") is None


# -- form --------------------------------------------------------------------------------------------------


def test_silent_resolvers_are_a_failure_with_a_reason(desk: Desk) -> None:
    desk.fake.add_guest(GUEST, limited=False)
    desk.upstream.silent = True
    response = desk.ask("example.org", source=GUEST, use_edns=0)
    assert rcode(response) == "SERVFAIL"
    assert "no resolver" in str(response.options[0].text)  # type: ignore[attr-defined]


def test_answer_that_does_not_fit_is_cut_and_says_so(desk: Desk) -> None:
    desk.fake.vms["big"] = [f"10.8.{i // 250}.{i % 250 + 1}" for i in range(500)]
    query = dns.message.make_query("big.vm", "A").to_wire()
    short = desk.send(query)
    assert short is not None
    assert len(short) <= 512
    assert dns.message.from_wire(short).flags & dns.flags.TC
    large = desk.send(dns.message.make_query("big.vm", "A", use_edns=0, payload=4096).to_wire())
    assert large is not None
    assert 0 < len(large) <= 1232
    whole = desk.send(query, tcp=True)
    assert whole is not None
    response = dns.message.from_wire(whole)
    assert not response.flags & dns.flags.TC
    assert len(told(response)) == 500


def changed(**facts: object) -> bytes:
    query = dns.message.make_query("web.vm", "A", **facts)
    return query.to_wire()


def header_rcode(wire: bytes | None) -> str:
    assert wire is not None
    return dns.rcode.to_text(dns.rcode.Rcode(wire[3] & 0xF))


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
def test_transfers_are_refused(desk: Desk, rdtype: str) -> None:
    wire = desk.send(dns.message.make_query("vm", rdtype).to_wire(), tcp=True)
    assert header_rcode(wire) == "REFUSED"


def test_other_class_is_refused(desk: Desk) -> None:
    assert header_rcode(desk.send(dns.message.make_query("version.bind", "TXT", "CH").to_wire())) == "REFUSED"


def test_unknown_version_of_edns_is_told(desk: Desk) -> None:
    wire = desk.send(changed(use_edns=1))
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.BADVERS


def test_other_operations_are_not_implemented(desk: Desk) -> None:
    query = dns.message.make_query("web.vm", "A")
    query.set_opcode(dns.opcode.NOTIFY)
    wire = desk.send(query.to_wire())
    assert header_rcode(wire) == "NOTIMP"
    assert wire is not None
    assert wire[:2] == query.id.to_bytes(2, "big")


def test_answer_is_never_answered(desk: Desk) -> None:
    response = dns.message.make_response(dns.message.make_query("web.vm", "A"))
    assert desk.send(response.to_wire()) is None


def test_failing_world_is_a_failure_of_that_question_alone(desk: Desk) -> None:
    class Broken(dict[str, list[str]]):
        def get(self, *_: object) -> Sequence[str]:  # type: ignore[override]
            raise RuntimeError("store is gone")

    desk.fake.vms, healthy = Broken(), desk.fake.vms
    broken = Answerer(Zone("vm"), desk.fake.world(), desk.upstream, Inline(), set)
    wire = asyncio.run(broken.answer(changed(), HOST, tcp=False))
    assert header_rcode(wire) == "SERVFAIL"
    desk.fake.vms = healthy
    assert told(desk.ask("web.vm")) == ["10.7.0.2"]


VALID = [
    changed(),
    changed(use_edns=0, want_dnssec=True),
    dns.message.make_query("2.0.7.10.in-addr.arpa", "PTR").to_wire(),
]


@given(st.binary(max_size=600))
def test_nonsense_is_answered_with_an_error_or_not_at_all(data: bytes) -> None:
    check(Desk(), data)


@given(
    st.sampled_from(VALID), st.lists(st.tuples(st.integers(2, 80), st.integers(0, 255)), max_size=6), st.integers(0, 90)
)
def test_damaged_question_is_answered_with_its_id_or_not_at_all(
    wire: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(wire)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    check(Desk(), bytes(damaged[: len(damaged) - cut] if cut < len(damaged) else damaged))


def check(desk: Desk, data: bytes) -> None:
    desk.fake.add_guest(GUEST, "example.org")
    for source in (HOST, GUEST):
        answer = desk.send(data, source)
        if len(data) < 12 or data[2] & 0x80:
            assert answer is None
            continue
        assert answer is not None
        assert answer[:2] == data[:2]
        assert answer[2] & 0x80
        assert len(answer) <= 1232
        dns.message.from_wire(answer, ignore_trailing=False)
    assert desk.answerer._logged_at == float("-inf"), "an exception that nobody foresaw"
