"""What a VM's published ports are on the host, over starts, restarts of the daemon and the death of their forwarder."""

from __future__ import annotations

import socket
import time

import pytest

from banger.actors.inventory import overview
from banger.actors.messages import CreateVm, KillVm, ReconcileHost, StartVm, StopVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import new_id
from banger.core.publishing import MOST_PORTS, parse_publish
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vm_spec import VmSpec
from banger.forwarding.forwarders import FORWARDER_KIND
from banger.forwarding.publisher import PORT_KIND
from banger.vmm import identity as processes
from tests.support.owned_vms import create, process_of
from tests.support.ports import free_port
from tests.support.waiting import eventually


@pytest.fixture
def world(vm_world):
    return vm_world


def forwarder_of(world, vm) -> ProcessIdentity:
    (handle,) = world.ledger.of(vm.id).of(FORWARDER_KIND)
    return ProcessIdentity(**handle.detail)


def answers(port: int, address: str = "127.0.0.1") -> bool:
    """Somebody listens, if only to reset."""
    try:
        socket.create_connection((address, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # so soon that the connection was not even told yet
        return True
    return True


def test_vm_without_published_ports_has_no_forwarder_and_no_port_of_the_host(world, vmm):
    vm = create(world, start=True)
    assert world.ledger.of(vm.id).of(FORWARDER_KIND) == []
    assert world.ledger.of(vm.id).of(PORT_KIND) == []


def test_published_ports_are_held_while_the_vm_runs_and_free_after_it(world):
    vm = create(world, start=True, ports=tuple(parse_publish(["80", "[::1]::80", "53/udp"])))
    over_tcp, over_tcp6, _ = vm.ports
    assert answers(over_tcp.host_port)
    assert answers(over_tcp6.host_port, "::1")
    assert [one for one in overview(world.services) if one.is_leak] == []

    world.do(StopVm(vm.id, vm.name))

    assert not answers(over_tcp.host_port)
    assert world.ledger.of(vm.id).of() == []


def test_forwarder_goes_on_over_a_restart_of_the_daemon(world):
    vm = create(world, start=True, ports=(PortForward(80),))
    before = forwarder_of(world, vm)
    world.restart()
    world.do(ReconcileHost(at_start=True))
    assert forwarder_of(world, vm) == before
    assert answers(vm.ports[0].host_port)


def test_forwarder_that_was_killed_is_replaced_at_the_same_ports(world):
    vm = create(world, start=True, ports=tuple(parse_publish(["80", "81", "53/udp"])))
    before = forwarder_of(world, vm)
    processes.kill(before)
    assert processes.wait_gone(before, 10)
    assert not answers(vm.ports[0].host_port)

    world.do(ReconcileHost())

    assert forwarder_of(world, vm) != before
    assert all(answers(one.host_port) for one in vm.ports[:2])


def test_forwarder_ends_with_a_machine_that_nobody_looks_after(world):
    vm = create(world, start=True, ports=(PortForward(80),))
    forwarder, machine = forwarder_of(world, vm), process_of(world, vm)
    world.stop()  # no daemon
    processes.kill(machine)
    eventually(lambda: not processes.is_same(forwarder), what="it is gone")
    world.start()
    world.do(ReconcileHost(at_start=True))


def test_conflict_names_protocol_port_and_vm_and_leaves_the_other_alone(world):
    port = free_port()
    first = create(world, "first", start=True, ports=(PortForward(80, port),))
    with pytest.raises(BangerError) as caught:
        create(world, "second", start=True, ports=(PortForward(80, port, "0.0.0.0"),))
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.message == f"tcp port {port} on 0.0.0.0 is already taken"
    assert caught.value.cause == 'VM "first" holds it'
    assert answers(first.ports[0].host_port)
    other = create(world, "third", start=True, ports=(PortForward(80, port, "0.0.0.0", "udp"),))
    world.do(KillVm(other.id, other.name))


def test_port_of_a_range_is_the_first_free_one_and_stays_the_vms_own(world):
    low = free_port()
    with socket.create_server(("127.0.0.1", low)):
        vm = create(world, start=True, ports=(PortForward(80, low, host_port_end=low + 20),))
        assert low < vm.ports[0].host_port <= low + 20
        world.do(StopVm(vm.id, vm.name))
    again = world.do(StartVm(vm.id, vm.name))
    assert again.ports == vm.ports


def test_picked_port_that_somebody_took_meanwhile_is_picked_anew(world):
    vm = create(world, start=True, ports=(PortForward(80),))
    world.do(StopVm(vm.id, vm.name))
    with socket.create_server(("127.0.0.1", vm.ports[0].host_port)):
        again = world.do(StartVm(vm.id, vm.name))
    assert again.ports[0].host_port != vm.ports[0].host_port


def test_widest_range_is_up_in_a_moment_and_one_entry_of_the_ledger(world):
    begun = time.monotonic()
    ports = tuple(parse_publish([f"{20500}-{20499 + MOST_PORTS // 4}:{20500}-{20499 + MOST_PORTS // 4}"]))
    vm = world.do(CreateVm(new_id(), "wide", VmSpec("alpine", ports=ports), start=True))
    assert time.monotonic() - begun < 10
    assert len(world.ledger.of(vm.id).of(PORT_KIND)) == 1
    assert answers(ports[-1].host_port)
    with pytest.raises(BangerError, match="already taken"):
        create(world, "other", start=True, ports=(ports[7],))


def test_request_with_ports_that_are_none_leaves_nothing(world):
    with pytest.raises(BangerError) as caught:
        create(world, ports=(PortForward(80, 8080, "localhost"),))
    assert caught.value.kind is ErrorKind.USAGE
    assert world.store.vms.all() == []
