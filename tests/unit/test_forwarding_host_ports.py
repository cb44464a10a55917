from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.port_forward import PortForward
from banger.forwarding import host_ports
from banger.forwarding.host_ports import Taken, bound_ports


def choose_ports(forwards: Sequence[PortForward], taken: Taken) -> list[PortForward]:
    """The forwards with the ports that were chosen, which are free again."""
    with bound_ports(forwards, taken) as bound:
        return [forward for forward, _ in bound]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def refusal(forwards: list[PortForward], taken: dict[tuple[str, str, int], str] | None = None) -> BangerError:
    with pytest.raises(BangerError) as caught:
        choose_ports(forwards, taken or {})
    return caught.value


def test_free_ports_are_picked_all_different_and_can_be_bound() -> None:
    chosen = choose_ports([PortForward(port) for port in range(1, 21)], {})
    assert [forward.guest_port for forward in chosen] == list(range(1, 21))
    assert len({forward.host_port for forward in chosen}) == 20
    for forward in chosen:
        with closing(socket.socket()) as sock:
            sock.bind((forward.host_address, forward.host_port))


def test_requested_port_that_is_free_is_kept_in_its_place(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    forwards = [PortForward(22), PortForward(80, port)]
    chosen = choose_ports(forwards, {})
    assert chosen[1] == forwards[1]
    assert chosen[0].guest_port == 22
    assert chosen[0].host_port not in (0, port)


def test_requested_port_that_somebody_listens_on_is_a_conflict(listener: socket.socket) -> None:
    error = refusal([PortForward(80, port_of(listener))])
    assert error.kind is ErrorKind.CONFLICT
    assert error.message == f"tcp port {port_of(listener)} on 127.0.0.1 is already taken"
    assert str(port_of(listener)) in error.hint


def test_requested_port_of_another_vm_names_that_vm() -> None:
    error = refusal([PortForward(80, 8080)], {("tcp", "127.0.0.1", 8080): "db"})
    assert error.kind is ErrorKind.CONFLICT
    assert '"db"' in error.cause
    assert error.hint == "banger vm show db"


@pytest.mark.parametrize(("ours", "theirs"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_requested_port_that_a_wildcard_covers_is_a_conflict(ours: str, theirs: str) -> None:
    assert refusal([PortForward(80, 8080, ours)], {("tcp", theirs, 8080): "db"}).kind is ErrorKind.CONFLICT


def test_requested_port_of_another_vm_on_another_address_is_free(listener: socket.socket) -> None:
    port = port_of(listener)
    wanted = [PortForward(80, port, "127.0.0.2")]
    assert choose_ports(wanted, {("tcp", "127.0.0.1", port): "db"}) == wanted


def test_port_requested_twice_is_a_conflict(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()
    assert refusal([PortForward(80, port), PortForward(81, port)]).kind is ErrorKind.CONFLICT


def test_port_with_connections_of_a_former_listener_is_free(listener: socket.socket) -> None:
    """A server that closed first leaves its port in TIME_WAIT; starting the VM again must not have to wait for that."""
    port = port_of(listener)
    with closing(socket.create_connection(("127.0.0.1", port))) as client:
        accepted, _ = listener.accept()
        listener.close()
        accepted.close()
        assert client.recv(1) == b""
    wanted = [PortForward(80, port)]
    assert choose_ports(wanted, {}) == wanted


def test_picked_port_is_not_one_that_a_vm_holds_but_does_not_listen_on_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[int] = []
    real = host_ports._owner

    def first_is_taken(forward: PortForward, taken: host_ports.Taken) -> str:
        offered.append(forward.host_port)
        return "db" if len(offered) == 1 else real(forward, taken)

    monkeypatch.setattr(host_ports, "_owner", first_is_taken)
    (chosen,) = choose_ports([PortForward(80)], {})
    assert chosen.host_port == offered[1] != offered[0]


def test_address_of_another_host_is_a_usage_error() -> None:
    error = refusal([PortForward(80, 8080, "192.0.2.1")])
    assert error.kind is ErrorKind.USAGE
    assert '"192.0.2.1"' in error.message


def test_port_of_the_system_is_denied_to_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, address: tuple[str, int]) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(host_ports.socket, "socket", type("Refusing", (socket.socket,), {"bind": bind}))
    error = refusal([PortForward(80, 80)])
    assert error.kind is ErrorKind.DENIED
    assert "1023" in error.hint


def test_choosing_leaves_nothing_bound() -> None:
    (chosen,) = choose_ports([PortForward(80)], {})
    assert choose_ports([chosen], {}) == [chosen]
