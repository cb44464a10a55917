"""Renewing the identity of a real guest: what its programs, its network and its ssh clients meet from then on."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from banger.actors.identity_items import RENEWING
from banger.actors.vm_identity import renew_identity
from banger.agent.guest import AgentGuest
from banger.agent.guests import AgentGuests
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.guest_identity import SeenIdentity
from banger.core.identity import ITEMS, Renewal, RenewalEvent
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.ports import AGENT_SOCKET, GuestNetwork, GuestProcess
from banger.core.random_reads import RandomReads
from banger.core.wire.vm_spec import VmSpec
from banger.guest.boot import LinuxGuestBoot
from banger.guest.hostkey import HostKeyMaker, public_key
from banger.layout import Layout
from banger.vmm.qemu import probe
from tests.support.agent_world import finish, guests_behind, operation
from tests.support.qemu_boot import (
    SEED,
    Disk,
    busybox_tree,
    debian_kernel,
    guest_config,
    machine,
    make_ssh_key,
    needs_qemu,
    overlay_disks,
    wait_until_ready,
)
from tests.support.ssh_server import served_locally
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from banger.actors.services import VmServices

pytestmark = [pytest.mark.boot, needs_qemu]

T = TypeVar("T")

PARENT = "0123456789ab"
NETWORK = GuestNetwork("10.0.2.77/24", "10.0.2.2", "10.0.2.3", "fd00::77/64", "fd00::2")
HOOK = """#!/bin/sh
[ "$BANGER_EVENT" != wake ] || { echo "no licence for $BANGER_VM_NAME" >&2; exit 3; }
echo "$BANGER_EVENT $BANGER_OLD_VM_NAME:$BANGER_OLD_VM_ID $BANGER_VM_NAME:$BANGER_VM_ID" >>/hooked
"""
#: Reads its key when it starts and at HUP, as the real one does.
SSHD = """#!/bin/sh
trap 'cat /etc/ssh/ssh_host_ed25519_key.pub >/run/served' HUP
echo $$ >/run/sshd.pid
while :; do sleep 0.1; done
"""


@dataclass
class Box:
    """The guest, and the daemon's end of it."""

    guests: AgentGuests
    loop: asyncio.AbstractEventLoop
    directory: Path
    reads: RandomReads = field(default_factory=RandomReads)
    vm: Vm = field(default_factory=lambda: Vm(PARENT, "box", VmSpec("debian"), VmState.RUNNING, clock.now()))

    @property
    def guest(self) -> AgentGuest:
        return self.guests.session(self.vm)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    def shown(self, command: str) -> str:
        """What a command of the shell says; it has to end well."""

        async def run() -> str:
            done = await finish(await self.guest.exec(ExecRequest(("sh", "-c", command))))
            assert done.status.code == 0, done
            return done.stdout.decode().strip()

        return self.do(run())

    def who(self) -> SeenIdentity:
        return self.do(self.guest.machine.identity())

    def renew(self, event: RenewalEvent, seed: bytes = SEED, of: Operation | None = None) -> SeenIdentity:
        """Its network is another one in another VM."""
        vm = replace(self.vm, name="child")
        renewal = Renewal(event, new_id(), "child", PARENT, "box", "child.lab", seed)
        if event is RenewalEvent.FORK:
            renewal = replace(renewal, mac="02:00:00:00:77:01", network=NETWORK)
        services = SimpleNamespace(guests=self.guests, host_keys=HostKeyMaker(), random_reads=self.reads)
        return renew_identity(cast("VmServices", services), vm, renewal, of or operation())


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    place = tmp_path_factory.mktemp("identity")
    tree = busybox_tree(
        place / "tree", "sh cat sleep hostname ip nc",
        ("etc/banger/restore.d", "etc/ssh", "var/lib/systemd", "var/lib/dhcp"),
    )  # fmt: skip
    for path, content, mode in (
        ("etc/banger/restore.d/10-app", HOOK, 0o755),
        ("etc/banger/restore.d/README", "no hook\n", 0o644),
        ("bin/sshd", SSHD, 0o755),
        ("etc/ssh/ssh_host_ed25519_key", "private\n", 0o600),
        ("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAold root@build\n", 0o644),
        ("var/lib/systemd/random-seed", "seed", 0o600),
        ("var/lib/dhcp/dhclient.eth0.leases", "lease", 0o600),
        ("etc/machine-id", "a" * 32 + "\n", 0o444),
    ):
        (tree / path).write_text(content)
        (tree / path).chmod(mode)
    config = guest_config(make_ssh_key(place), vm_id=PARENT)
    layout = Layout(place, place, place, place / "cache")
    kernel = debian_kernel()
    disks = [*overlay_disks(place, tree), Disk(kernel / "modules.ext4", "modules", read_only=True)]
    parts = (LinuxGuestBoot(layout), kernel, disks, place, config)
    with ExitStack() as stack:
        running = stack.enter_context(machine(*parts, tsc_khz=probe.tsc_khz(layout)))
        wait_until_ready(running)
        guests, loop = stack.enter_context(guests_behind(place / AGENT_SOCKET))
        made = Box(guests, loop, place)
        guests.connect(made.vm, operation(), 60)
        made.shown("sshd </dev/null >/dev/null 2>&1 &")
        eventually(lambda: made.shown("cat /run/sshd.pid || true"), 30, "its sshd runs")
        yield made


def test_copy_is_somebody_else_for_its_programs_its_network_and_its_clients(box: Box) -> None:
    was, seed, begun = box.who(), b"\7" * 32, operation()
    assert was.hostname == was.hostname_file
    assert set(was.sshd_keys) == {"ssh_host_ed25519_key"}
    with served_locally(box.loop, box.guest.ssh) as port:
        old_key = _host_key(port)
        assert box.who().has_ssh_server
        seen = box.renew(RenewalEvent.FORK, seed, begun)
        new_key = _host_key(port)
    assert old_key != new_key == public_key(seed)
    assert [step.name for step in begun.steps][1:-1] == [RENEWING[item].step for item in ITEMS]

    names = box.shown("hostname; cat /etc/hostname /etc/machine-id /proc/sys/kernel/random/boot_id /etc/hosts").split()
    assert names[:4] == ["child.lab", "child.lab", seen.machine_id, seen.boot_id]
    assert (seen.machine_id, seen.boot_id) != (was.machine_id, was.boot_id)
    assert "child.lab" in names[4:]
    assert was.hostname not in names[4:]
    facts = box.do(box.guest.machine.facts())
    assert (facts.hostname, facts.machine_id, facts.boot_id) == ("child.lab", seen.machine_id, seen.boot_id)
    card = next(net for net in facts.nets if net.name == "eth0")
    assert card.mac == "02:00:00:00:77:01"
    assert {"10.0.2.77/24", "fd00::77/64", "fe80::ff:fe00:7701/64"} == set(card.addresses)
    routes = box.shown("ip route; ip -6 route")
    assert "default via 10.0.2.2 dev eth0" in routes
    assert "default via fd00::2 dev eth0" in routes
    assert not set(seen.random) & set(was.random)
    assert box.shown("cat /var/lib/systemd/random-seed /var/lib/dhcp/* 2>&1 || true").count("No such file") == 2
    assert (
        box.shown("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2] == seen.sshd_keys["ssh_host_ed25519_key"].split()
    )
    assert box.shown("cat /etc/ssh/ssh_host_ed25519_key").startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    served = eventually(lambda: box.shown("cat /run/served 2>/dev/null || true"), 30, "its sshd has read the new key")
    assert served.split()[:2] == seen.sshd_keys["ssh_host_ed25519_key"].split()
    hooked = box.shown("cat /hooked").splitlines()[-1]
    assert hooked == f"fork box:{PARENT} child:{seen.vm_id}"


def test_connection_of_an_address_that_is_gone_ends_at_once(box: Box) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        port = server.getsockname()[1]

        async def connect() -> GuestProcess:
            return await box.guest.exec(ExecRequest(("nc", "10.0.2.2", str(port))))

        process = box.do(connect())
        served, _ = server.accept()
        with served:
            box.do(box.guest.machine.set_network(replace(NETWORK, address="10.0.2.78/24")))
            try:
                box.do(asyncio.wait_for(process.wait(), 60))
            finally:
                box.do(process.close())


def test_hook_that_fails_is_named_and_the_guest_goes_on(box: Box) -> None:
    with pytest.raises(BangerError) as caught:
        box.renew(RenewalEvent.WAKE)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.message == 'the hook "/etc/banger/restore.d/10-app" failed in VM "child"'
    assert caught.value.cause == "exit code 3: no licence for child"
    assert box.shown("echo on") == "on"


def test_vm_that_is_rewound_keeps_its_names_and_keys_and_its_hooks_run_once(box: Box) -> None:
    was = box.who()
    before = box.shown("cat /hooked 2>/dev/null || true").splitlines()
    behind_ns = 3600 * 10**9
    box.do(box.guest.machine.set_clock(clock.unix_ns() - behind_ns))
    seen = box.renew(RenewalEvent.REWIND)
    kept = ("hostname", "hostname_file", "machine_id", "vm_id", "host_key", "sshd_keys")
    assert {name: getattr(seen, name) for name in kept} == {name: getattr(was, name) for name in kept}
    assert seen.boot_id != was.boot_id
    assert abs(box.do(box.guest.machine.clock()) - clock.unix_ns()) < behind_ns / 2
    after = box.shown("cat /hooked").splitlines()
    assert len(after) == len(before) + 1
    assert after[-1].startswith("rewind ")


@pytest.mark.parametrize(
    "network",
    [
        replace(NETWORK, address="10.0.2.77"),
        replace(NETWORK, address="300.0.2.77/24"),
        replace(NETWORK, address="fd00::77/64"),
        replace(NETWORK, address="10.0.2.77/33"),
        replace(NETWORK, gateway="gateway"),
        replace(NETWORK, gateway6="10.0.2.2"),
        replace(NETWORK, nameserver="x\nnameserver 1.2.3.4"),
    ],
)
def test_addresses_that_are_none_change_nothing(box: Box, network: GuestNetwork) -> None:
    was = box.who()
    with pytest.raises(BangerError) as caught:
        box.do(box.guest.machine.set_network(network))
    assert caught.value.kind is ErrorKind.INVALID
    now = box.who()
    assert (now.mac, now.addresses[0], now.is_up) == (was.mac, was.addresses[0], True)


def _host_key(port: int) -> str:
    """What an ssh client meets there."""
    argv = ["ssh-keyscan", "-T", "60", "-t", "ed25519", "-p", str(port), "127.0.0.1"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False).stdout
    return " ".join(said.split()[1:])
