"""Who is connected to a guest, from the host's own table."""

from __future__ import annotations

import socket

import pytest

from banger.core import clock
from banger.core.models import Vm, VmState
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vm_spec import VmSpec
from banger.host.activity import Connection, established, into_guest, parse

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9C41 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 4 30 10 -1
   1: 0100007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 0101070A:A0F2 0201070A:08AE 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 20 4 30 10 -1
"""


def vm(address: str, *ports: PortForward) -> Vm:
    return Vm(
        "feedfacecafe",
        "web",
        VmSpec("x"),
        VmState.RUNNING,
        clock.now(),
        address=address,
        ports=ports,
    )


def test_only_established_connections_count() -> None:
    assert list(parse(TABLE)) == [Connection(40001, "127.0.0.1", 54321), Connection(41202, "10.7.1.2", 2222)]


def test_connections_lead_into_the_guest_by_port_or_by_address() -> None:
    table = list(parse(TABLE))
    assert into_guest(vm("127.0.0.1", PortForward(80, 40001)), table) == 1
    assert into_guest(vm("127.0.0.1", PortForward(80, 41203)), table) == 0
    assert into_guest(vm("127.0.0.1"), table) == 0
    assert into_guest(vm("10.7.1.2"), table) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_real_connection_is_seen(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        assert into_guest(vm("127.0.0.1", PortForward(80, port)), established()) == 0
        with socket.create_connection((address, port)):
            peer, _ = server.accept()
            with peer:
                assert into_guest(vm("127.0.0.1", PortForward(80, port)), established()) == 1
