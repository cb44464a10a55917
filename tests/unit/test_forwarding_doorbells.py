"""Ports of suspended VMs: who comes rings once, waits, and is there for whoever takes the sockets over."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from banger.core.wire.port_forward import PortForward
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.host_ports import bound_ports, has_callers
from tests.support.waiting import eventually

TCP, UDP = PortForward(80), PortForward(53, protocol="udp")


class Hall:
    """Doorbells, and who was rung for."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.first = threading.Event()
        self.bells = Doorbells(self._ring)

    def _ring(self, vm_id: str) -> None:
        self.rung.append(vm_id)
        self.first.set()

    def hold(self, vm_id: str, *forwards: PortForward) -> list[PortForward]:
        with bound_ports(forwards, {}) as bound:
            self.bells.hold(vm_id, f"name of {vm_id}", bound)
            return [forward for forward, _ in bound]


@pytest.fixture
def hall() -> Iterator[Hall]:
    hall = Hall()
    yield hall
    hall.bells.close()


def connected(forward: PortForward) -> socket.socket:
    return socket.create_connection((forward.host_address, forward.host_port), timeout=10)


def test_who_comes_rings_once_and_waits_with_what_he_says(hall: Hall) -> None:
    [port] = hall.hold("one", TCP)
    with connected(port) as first, connected(port) as second:
        first.sendall(b"hello")
        assert hall.first.wait(10)
        second.sendall(b"me too")
        [taken] = hall.bells.take("one").values()
        with taken:
            assert has_callers(taken)
            served = {taken.accept()[0].recv(16) for _ in range(2)}
    assert served == {b"hello", b"me too"}
    assert hall.rung == ["one"]


def test_datagrams_wait_too(hall: Hall) -> None:
    [port] = hall.hold("one", UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"hello", (port.host_address, port.host_port))
        assert hall.first.wait(10)
        [taken] = hall.bells.take("one").values()
        with taken:
            assert taken.recv(16) == b"hello"


def test_each_vm_is_rung_for_by_its_own_ports(hall: Hall) -> None:
    [one], [two] = hall.hold("one", TCP), hall.hold("two", TCP)
    with connected(two):
        assert hall.first.wait(10)
    assert hall.rung == ["two"]
    assert hall.bells.taken("two") == {("tcp", one.host_address, one.host_port): "name of one"}


def test_who_waits_is_refused_when_the_ports_are_let_go_of(hall: Hall) -> None:
    [port] = hall.hold("one", TCP)
    with connected(port) as client:
        assert hall.first.wait(10)
        hall.bells.let_go("one")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connected(port)
    assert not hall.bells.holds("one")


def test_ports_are_free_once_all_is_closed_and_nothing_is_held_any_more(hall: Hall) -> None:
    [port] = hall.hold("one", TCP)
    hall.bells.close()
    hall.bells.close()
    assert hall.hold("two", port) == [port]
    assert not hall.bells.holds("two")


def test_sockets_that_were_kept_are_used_again(hall: Hall) -> None:
    [port] = hall.hold("one", TCP)
    with connected(port) as client:
        eventually(lambda: bool(hall.rung))
        with bound_ports([TCP], {}, [port], hall.bells.take("one")) as bound:
            [(again, opened)] = bound
            assert again == port
            opened.accept()[0].sendall(b"welcome")
        assert client.recv(16) == b"welcome"
