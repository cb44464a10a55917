"""Every check of a guest finds the fault that it is there for, with a hint that fits, and no other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any, cast

import pytest

from banger.checkup import basics, network
from banger.checkup.guest import Guest, ScriptResult
from banger.checkup.hostside import PortProbe, Route
from banger.checkup.network import NetworkBaseline, answer_of
from banger.checkup.probe_server import ProbeServer
from banger.checkup.report import CheckFailedError, Finding
from banger.core.clock import now
from banger.core.errors import BangerError, ErrorKind
from tests.support.fake_api import vm_json

WORD, PORT = "word", 4444
ROUTES = "Iface\tD\tG\nenp0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
NO_ROUTES = "Iface\tD\tG\n"
ANSWERED = "Server:\t\t10.0.2.3\nAddress:\t10.0.2.3:53\n\n** server can't find localhost: NXDOMAIN\n"
RESOLVED = "Server:\t\t10.0.2.3\nAddress:\t10.0.2.3:53\n\nName:\tkeen-owl.vm\nAddress: 10.1.0.2\n"
SILENT = ";; connection timed out; no servers could be reached\n"
HERE = IPv4Address("192.0.2.53")
ROUTER = Route(IPv4Address("192.0.2.1"), "eth0", 1500)

Script = Callable[..., ScriptResult]


def said(stdout: str | bytes = "", code: int = 0, stderr: str = "") -> ScriptResult:
    return ScriptResult(code, stdout.encode() if isinstance(stdout, str) else stdout, stderr.encode())


class FakeGuest:
    """Answers scripts by a word that stands in them; the first that matches counts."""

    def __init__(self, network: str = "slirp", console: str = "", **answers: ScriptResult | Script) -> None:
        self.vm = vm_json("keen-owl", spec={"network": network})
        self.network = network
        self.answers: Mapping[str, ScriptResult | Script] = answers
        self._console = console

    def shell(self, script: str, *args: str, stdin: bytes = b"", timeout_s: float = 0.0) -> ScriptResult:
        assert timeout_s < 60
        for word, answer in self.answers.items():
            if word in script:
                return answer if isinstance(answer, ScriptResult) else answer(*args, stdin=stdin)
        return said()

    def console(self) -> str:
        return self._console


def guest(network: str = "slirp", console: str = "", **answers: ScriptResult | Script) -> Guest:
    return cast("Guest", FakeGuest(network, console, **answers))


class FakeListener:
    word, port = WORD, PORT

    def data(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)

    def digest_of(self, size_bytes: int) -> str:
        return hashlib.sha256(bytes(size_bytes)).hexdigest()


def around(**facts: Any) -> NetworkBaseline:
    """A host with a router and a name server, both of which answer."""
    wanted: dict[str, Any] = {
        "route": ROUTER,
        "servers": [HERE],
        "answering": lambda servers: servers,
        "pings": lambda _address: True,
        "knock": lambda _address: None,
        **facts,
    }
    return NetworkBaseline(cast("ProbeServer", FakeListener()), **wanted)


def failure(check: Callable[..., Finding], *args: Any) -> CheckFailedError:
    with pytest.raises(CheckFailedError) as caught:
        check(*args)
    return caught.value


# -- kernel, console, root, exec, clock ---------------------------------------------------------------------------


def test_kernel_that_was_chosen_is_fine() -> None:
    assert basics.check_kernel(guest(osrelease=said("6.1.0\n")), "6.1.0").detail == "6.1.0"


def test_kernel_whose_file_does_not_tell_its_release_is_believed() -> None:
    assert basics.check_kernel(guest(osrelease=said("6.1.0")), "").detail == "6.1.0"


def test_other_kernel_than_the_chosen_one_fails() -> None:
    assert "5.10 runs, and 6.1.0 was to" in failure(basics.check_kernel, guest(osrelease=said("5.10")), "6.1.0").detail


MARKS = "banger: init 1.5\nbanger: root 2.0\nbanger: ready 2.5\n"


def test_console_without_the_boots_lines_fails_and_names_them() -> None:
    found = failure(basics.check_console, guest(console="banger: init 1.5\n"))
    assert found.detail.endswith("root, ready")
    assert "ttyS0" in found.hint


def test_console_that_lost_its_guest_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basics, "_CONSOLE_WAIT_S", 0.05)
    monkeypatch.setattr(basics, "_CONSOLE_POLL_S", 0.01)
    assert "does not arrive" in failure(basics.check_console, guest(console=MARKS)).detail


def test_console_that_takes_a_line_is_fine() -> None:
    one = FakeGuest(console=MARKS)

    def write(word: str, stdin: bytes) -> ScriptResult:
        one._console += word
        return said()

    one.answers = {"/dev/console": write}
    assert "init after 1.50 s" in basics.check_console(cast("Guest", one)).detail


def _hashed(*_: str, stdin: bytes) -> ScriptResult:
    return said(f"{hashlib.sha256(stdin).hexdigest()}  -\n")


def test_root_that_gives_back_what_was_written_is_fine() -> None:
    assert "read back" in basics.check_root(guest(sha256sum=_hashed)).detail


@pytest.mark.parametrize(
    ("complaint", "hint"),
    [
        ("cat: write error: No space left on device", "--disk"),
        ("sh: can't create /.banger-checkup: Read-only file system", "--init none"),
        ("cat: write error: Input/output error", "dmesg"),
        ("something new", ""),
    ],
)
def test_root_that_cannot_be_written_has_its_cause_and_a_hint_that_fits(complaint: str, hint: str) -> None:
    found = failure(basics.check_root, guest(sha256sum=said(code=1, stderr=complaint)))
    assert found.cause == complaint
    assert hint in found.hint
    assert bool(hint) is bool(found.hint)


def test_root_that_reads_back_something_else_fails() -> None:
    assert "differently" in failure(basics.check_root, guest(sha256sum=said("0" * 64))).detail


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda stdin: said(stdin, 42, "apart\n"), ""),
        (lambda stdin: said(stdin, 0, "apart\n"), "exit code 42 arrived as 0"),
        (lambda stdin: said(stdin[:-1], 42, "apart\n"), "other bytes"),
        (lambda stdin: said(stdin + b"apart\n", 42, ""), "other bytes"),
        (lambda stdin: said(stdin, 42, ""), "standard error"),
    ],
)
def test_exec_is_fine_only_if_code_and_both_streams_are(answer: Script, words: str) -> None:
    one = guest(apart=answer)
    if words:
        assert words in failure(basics.check_exec, one).detail
    else:
        assert "exit code, streams apart" in basics.check_exec(one).detail


class FakeTalk:
    """A guest's clock, so many seconds ahead, that shows so many digits."""

    def __init__(self, ahead_s: float, digits: int = 6) -> None:
        self._ahead_s, self._digits = ahead_s, digits

    def __enter__(self) -> FakeTalk:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self) -> str:
        time_s = now().timestamp() + self._ahead_s
        return f"{time_s:.{self._digits}f}" if self._digits else str(int(time_s))


def _clock(talk: FakeTalk) -> Guest:
    one = guest()
    one.talk = lambda *_: talk  # type: ignore[method-assign, assignment, misc]
    return one


@pytest.mark.parametrize("ahead_s", [0.0, 0.9, -0.9])
def test_clock_within_a_second_is_fine(ahead_s: float) -> None:
    assert basics.check_clock(_clock(FakeTalk(ahead_s))).note is False


@pytest.mark.parametrize("ahead_s", [1.2, -1.2, 3600.0, -1e9])
def test_clock_beyond_a_second_fails(ahead_s: float) -> None:
    assert "of this host" in failure(basics.check_clock, _clock(FakeTalk(ahead_s))).detail


def test_guest_without_a_clock_fails() -> None:
    one = FakeTalk(0)
    one.ask = lambda: "date: not found"  # type: ignore[method-assign]
    assert failure(basics.check_clock, _clock(one)).detail == "the guest does not tell the time"


# -- network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("printed", "answer"),
    [
        (ANSWERED, "NXDOMAIN"),
        (RESOLVED, "10.1.0.2"),
        ("Server: x\nAddress: x:53\n\n** server can't find localhost: REFUSED\n", "REFUSED"),
        ("Server: x\nAddress: x:53\n\n*** Can't find localhost: No answer\n", "no address"),
        (SILENT, ""),
        (SILENT + "\n*** Can't find localhost: No answer\n", ""),
        ("nslookup: write to '10.0.2.3': Network unreachable\n", ""),
        ("", ""),
    ],
)
def test_busyboxs_answers_to_a_look_up_are_told_apart(printed: str, answer: str) -> None:
    assert answer_of(printed) == answer


CONF = said("nameserver 10.0.2.3\n")


def test_name_server_that_answers_anything_is_fine() -> None:
    assert "NXDOMAIN" in network.check_dns(guest(resolv=CONF, nslookup=said(ANSWERED, 1)), around()).detail


def test_guest_on_a_tap_asks_for_its_own_name() -> None:
    asked: list[str] = []

    def look_up(*args: str, stdin: bytes) -> ScriptResult:
        asked.extend(args)
        return said(RESOLVED)

    network.check_dns(guest("tap", resolv=CONF, nslookup=look_up), around(suffix="lab"))
    assert asked == ["keen-owl.lab", "10.0.2.3"]


def test_guest_without_a_name_server_fails() -> None:
    assert "names no server" in failure(network.check_dns, guest(resolv=said("# nothing\n")), around()).detail


@pytest.mark.parametrize("servers", [[], [HERE]])
def test_host_that_nobody_answers_makes_dns_a_note(servers: Sequence[IPv4Address]) -> None:
    found = network.check_dns(
        guest(resolv=CONF, nslookup=said(SILENT, 1)), around(servers=servers, answering=lambda _servers: [])
    )
    assert found.note
    assert found.detail.startswith("no upstream")


@pytest.mark.parametrize(
    ("servers", "answering", "cause"),
    [
        (["192.0.2.53"], ["192.0.2.53"], "timed out"),
        (["2001:db8::53"], ["2001:db8::53"], "IPv4 address, and this host has none"),
        (["192.0.2.9", "192.0.2.53"], ["192.0.2.53"], "the first IPv4 server alone, 192.0.2.9"),
    ],
)
def test_silence_for_the_guest_alone_fails_with_what_qemus_network_does(
    servers: list[str], answering: list[str], cause: str
) -> None:
    here = around(
        servers=[ip_address(one) for one in servers], answering=lambda _: [ip_address(one) for one in answering]
    )
    found = failure(network.check_dns, guest(resolv=CONF, nslookup=said(SILENT, 1)), here)
    assert cause in found.cause
    assert found.hint


def test_guest_that_connects_through_its_gateway_is_fine() -> None:
    asked: list[str] = []

    def hello(*args: str, stdin: bytes) -> ScriptResult:
        asked.extend(args)
        return said("hello\n")

    found = network.check_egress(guest(route=said(ROUTES), hello=hello), around())
    assert asked == [WORD, "10.0.2.2", str(PORT)]
    assert "--reach" in found.detail


def test_guest_that_cannot_connect_fails_with_the_words_it_got() -> None:
    one = guest(route=said(ROUTES), hello=said(code=1, stderr="nc: can't connect: Connection timed out"))
    assert "timed out" in failure(network.check_egress, one, around()).cause


def test_guest_whose_route_is_gone_fails() -> None:
    assert "no default route" in failure(network.check_egress, guest(route=said(NO_ROUTES)), around()).detail


@pytest.mark.parametrize("reached", [True, False])
def test_network_none_is_fine_only_if_nothing_is_reached(reached: bool) -> None:
    one = guest("none", hello=said("hello\n") if reached else said(code=1, stderr="nc: Network is unreachable"))
    if reached:
        assert "reaches this host all the same" in failure(network.check_egress, one, around()).detail
    else:
        assert "nothing" in network.check_egress(one, around()).detail


REFUSED = said(code=1, stderr="nc: can't connect to remote host (10.0.2.2): Connection refused")


def _tap(hello: ScriptResult = REFUSED, small: int = 0, full: int = 0, mtu: str = "1500") -> Guest:
    def ping(_address: str, size: str, stdin: bytes) -> ScriptResult:
        return said(code=small if size == "56" else full)

    return guest("tap", route=said(ROUTES), hello=hello, ping=ping, net=said(mtu))


def test_tap_that_refuses_this_host_and_reaches_its_router_is_fine() -> None:
    found = network.check_egress(_tap(), around())
    assert not found.note
    assert "192.0.2.1" in found.detail


def test_tap_that_lets_the_guest_into_this_host_fails() -> None:
    assert "forbids" in failure(network.check_egress, _tap(said("hello\n")), around()).detail


def test_tap_whose_packets_get_lost_fails() -> None:
    silent = said(code=1, stderr="nc: can't connect: Connection timed out")
    assert "get lost" in failure(network.check_egress, _tap(silent), around()).detail


def test_tap_behind_another_firewall_fails_where_this_host_gets_through() -> None:
    found = failure(network.check_egress, _tap(small=1), around())
    assert "does not reach 192.0.2.1" in found.detail
    assert "firewall" in found.hint


@pytest.mark.parametrize(
    ("accepts", "nc", "fine"),
    [
        (True, said(), True),
        (True, said(code=1, stderr="nc: can't connect: Connection timed out"), False),
        (True, said(code=1, stderr="nc: can't connect: Connection refused"), False),
        (False, said(code=1, stderr="nc: can't connect: Connection refused"), True),
        (False, said(code=1, stderr="nc: can't connect: Connection timed out"), False),
        (False, said(code=1, stderr="nc: invalid option -- 'e'"), True),
    ],
)
def test_tap_that_passes_pings_alone_is_found(accepts: bool, nc: ScriptResult, fine: bool) -> None:
    def talk(*_: str, stdin: bytes) -> ScriptResult:
        return nc

    one = guest("tap", route=said(ROUTES), hello=REFUSED, ping=said(), true=talk)
    here = around(knock=lambda _: PortProbe(443, accepts))
    if fine:
        assert "answers" in network.check_egress(one, here).detail
    else:
        assert "TCP does not" in failure(network.check_egress, one, here).detail


@pytest.mark.parametrize("facts", [{"route": None}, {"pings": lambda _: False}, {"pings": lambda _: None}])
def test_what_this_host_does_not_reach_either_is_a_note(facts: dict[str, Any]) -> None:
    assert network.check_egress(_tap(), around(**facts)).note


def test_tap_with_larger_packets_than_the_uplink_fails() -> None:
    found = failure(network.check_mtu, _tap(mtu="1500"), around(route=Route(ROUTER.gateway, "wg0", 1420)))
    assert "1420" in found.detail


def test_tap_that_loses_full_packets_fails() -> None:
    assert "gets lost" in failure(network.check_mtu, _tap(full=1), around()).detail


def test_tap_with_full_packets_is_fine() -> None:
    assert "full size" in network.check_mtu(_tap(), around()).detail


def test_guest_without_a_card_fails_with_what_to_boot_instead() -> None:
    assert "--kernel" in failure(network.check_mtu, guest(net=said("")), around()).hint


def _transfers(send: ScriptResult | Script, take: ScriptResult | Script) -> Guest:
    return guest(cards=said(), route=said(ROUTES), take=take, send=send, net=said("1500"))


DIGEST = said(hashlib.sha256(bytes(512 << 10)).hexdigest() + "  -\n")


def test_transfers_that_arrive_whole_are_fine() -> None:
    assert network.check_mtu(_transfers(DIGEST, DIGEST), around()).detail.startswith("1500 bytes; 512 KiB")


def test_transfer_that_arrives_damaged_fails() -> None:
    assert "from the guest" in failure(network.check_mtu, _transfers(DIGEST, said("0" * 64)), around()).detail


def test_transfer_that_stalls_fails() -> None:
    def stall(*_: str, stdin: bytes) -> ScriptResult:
        raise BangerError(ErrorKind.TIMEOUT, "the command did not end within 20 s")

    assert "stalled" in failure(network.check_mtu, _transfers(stall, DIGEST), around()).detail


def test_place_beyond_is_reached_by_name() -> None:
    here = around(reach=("deb.example", 443), reaches=lambda *_: "")
    found = network.check_reach(guest(resolv=CONF, nslookup=said(RESOLVED), nc=said()), here)
    assert found.detail == "deb.example:443 (10.1.0.2)"


def test_place_that_this_host_does_not_reach_is_a_note() -> None:
    found = network.check_reach(guest(), around(reach=("192.0.2.8", 443), reaches=lambda *_: "No route to host"))
    assert found.note
    assert "No route to host" in found.detail


def test_place_that_only_the_guest_does_not_reach_fails() -> None:
    here = around(reach=("192.0.2.8", 443), reaches=lambda *_: "")
    assert "this host does" in failure(network.check_reach, guest(nc=said(code=1, stderr="nc: timed out")), here).detail


def test_name_that_only_the_guest_does_not_know_fails() -> None:
    here = around(reach=("deb.example", 443), reaches=lambda *_: "")
    found = failure(network.check_reach, guest(resolv=CONF, nslookup=said(ANSWERED, 1)), here)
    assert found.detail == "the guest cannot look up deb.example, and this host can"


def test_busybox_that_cannot_try_a_connection_is_a_note() -> None:
    here = around(reach=("192.0.2.8", 443), reaches=lambda *_: "")
    assert network.check_reach(guest(nc=said(code=1, stderr="nc: invalid option -- 'e'")), here).note
