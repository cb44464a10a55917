"""How published ports are written in the ledger, and read again, also what an older daemon wrote."""

from __future__ import annotations

from dataclasses import replace

from loguru import logger

from banger.core.ports import Handle
from banger.core.publishing import parse_publish, runs
from banger.core.wire.port_forward import PortForward
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import FORWARDER_KIND, Forwarders
from banger.forwarding.publisher import PORT_KIND, Publisher, held_ports, port_key
from banger.network.guests import Guest
from tests.support.netlab import MemoryLedger, make_vm
from tests.support.ports import unreachable


def test_range_is_one_entry_and_stands_for_each_of_its_ports() -> None:
    ledger = MemoryLedger()
    forwards = parse_publish(["8000-8002:80-82", "8003:90", "[::1]:53:53/udp"])
    publisher = Publisher(Forwarders("0f0f0f0f0f0f", unreachable), lambda _: {}, Doorbells(lambda _: None))

    publisher.hold(ledger.of_vm("1"), forwards, forwarded=True)

    assert [one.key for one in ledger.all()] == ["127.0.0.1:8000-8002/tcp", "127.0.0.1:8003/tcp", "::1:53/udp"]
    assert held_ports(ledger.all(), {"1": "web"}, besides="2") == {
        ("tcp", "127.0.0.1", 8000): "web",
        ("tcp", "127.0.0.1", 8001): "web",
        ("tcp", "127.0.0.1", 8002): "web",
        ("tcp", "127.0.0.1", 8003): "web",
        ("udp", "::1", 53): "web",
    }
    assert held_ports(ledger.all(), {}, besides="1") == {}


def test_entry_of_an_older_daemon_is_a_tcp_port() -> None:
    handle = Handle("1", PORT_KIND, "127.0.0.1:8080", "intended", {"guest_port": 80})
    assert held_ports([handle], {}, besides="") == {("tcp", "127.0.0.1", 8080): "1"}


def test_guest_on_tap_of_an_older_daemon_keeps_its_ports() -> None:
    detail = {
        "tap": "bt0", "mac": "02:00:00:00:00:01", "subnet": "10.7.0.0/22", "subnet6": "", "egress": "open",
        "ports": [["127.0.0.1", 8080, 80]],
    }  # fmt: skip
    guest = Guest.from_handle(Handle("1", "address", "10.7.0.2", "active", detail))
    assert guest is not None
    assert guest.ports == (PortForward(80, 8080),)


def test_only_what_goes_up_side_by_side_is_a_run() -> None:
    forwards = [PortForward(80, 8000), PortForward(81, 8001), PortForward(81, 8002), PortForward(82, 8003, "::1")]
    assert [port_key(run) for run in runs(forwards)] == [
        "127.0.0.1:8000-8001/tcp",
        "127.0.0.1:8002/tcp",
        "::1:8003/tcp",
    ]


def test_forwarder_of_an_older_banger_that_has_ended_is_not_started_again() -> None:
    """Its machine has no port for a forwarder: what it needs is said, and nothing is tried."""
    ledger = MemoryLedger().of_vm("1")
    ledger.intend(PORT_KIND, "127.0.0.1:8080/tcp", {"guest_port": 80, "to": [["stack", "127.64.0.1", 20000]]})
    publisher = Publisher(Forwarders("0f0f0f0f0f0f", unreachable), lambda _: {}, Doorbells(lambda _: None))
    vm = replace(make_vm(1), ports=(PortForward(80, 8080),))
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)))
    try:
        publisher.again(vm, ledger)
    finally:
        logger.remove(sink)
    assert ledger.of(FORWARDER_KIND) == []
    assert f"banger vm restart {vm.name}" in said[0]
