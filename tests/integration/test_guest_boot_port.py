"""The methods of the `Guests` port in a real guest: what cannot be tried on this machine itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from banger.agent.guest import AgentGuest
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.ports import GuestIdentity, WriteOptions
from banger.guest.boot import LinuxGuestBoot
from banger.layout import Layout
from tests.support.frozen import PATIENCE_S, freezes_and_thaws, is_held_up, writer
from tests.support.qemu_boot import (
    Machine,
    busybox_tree,
    debian_kernel,
    guest_config,
    machine,
    make_ssh_key,
    needs_qemu,
    overlay_disks,
    wait_until_ready,
)

pytestmark = [pytest.mark.boot, needs_qemu]

MACHINE_ID, BOOT_ID = "0123456789abcdef" * 2, "11111111-2222-4333-8444-555555555555"
IN_2040_NS = 2_208_988_800 * 10**9


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    place = tmp_path_factory.mktemp("port")
    boot = LinuxGuestBoot(Layout(place, place, place, place / "cache"))
    disks = overlay_disks(place, busybox_tree(place / "tree", "sh cat sleep hostname"))
    with machine(boot, debian_kernel(), disks, place, guest_config(make_ssh_key(place))) as running:
        wait_until_ready(running)
        yield running


async def shown(guest: AgentGuest, *argv: str) -> bytes:
    process = await guest.exec(ExecRequest(argv))
    said = b"".join([data async for _, data in process.output()])
    assert (await process.wait()).code == 0, said
    return said


def test_figures_are_those_of_the_guest(guest: Machine) -> None:
    async def look(at: AgentGuest) -> None:
        facts = await at.machine.facts()
        assert facts.hostname == "guest-1"
        assert facts.cpu.count == 1
        assert 300 << 20 < facts.memory.total_bytes < 512 << 20
        assert [disk.mount_point for disk in facts.disks] == ["/"]
        assert facts.disks[0].type == "overlay"
        assert {net.name: net.addresses[0] for net in facts.nets if net.is_up}["eth0"] == "10.0.2.15/24"

    guest.ask(look)


def test_clock_is_set_and_randomness_seeded(guest: Machine) -> None:
    async def look(at: AgentGuest) -> None:
        before = await at.machine.set_clock(IN_2040_NS)
        assert before < IN_2040_NS
        assert IN_2040_NS <= await at.machine.clock() < IN_2040_NS + 600 * 10**9
        await at.machine.set_clock(before)
        await at.machine.add_entropy(bytes(range(64)))

    guest.ask(look)


def test_identity_is_what_programs_see_from_then_on(guest: Machine) -> None:
    async def change(at: AgentGuest) -> None:
        await at.machine.identify(GuestIdentity("renamed", MACHINE_ID, BOOT_ID))
        seen = await shown(at, "cat", "/etc/hostname", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
        assert seen.decode().split() == ["renamed", MACHINE_ID, BOOT_ID]
        assert (await shown(at, "hostname")).strip() == b"renamed"
        facts = await at.machine.facts()
        assert (facts.hostname, facts.machine_id, facts.boot_id) == ("renamed", MACHINE_ID, BOOT_ID)
        await at.machine.identify(GuestIdentity(hostname="guest-1"))

    guest.ask(change)


def test_files_are_written_listed_and_read(guest: Machine) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async def work(at: AgentGuest) -> None:
        await at.files.mkdir("/srv/deep", parents=True)
        await at.files.write("/srv/deep/file", pieces(), WriteOptions(durable=True))
        assert [entry.name async for entry in at.files.list("/srv/deep")] == ["file"]
        assert b"".join([data async for data in at.files.read("/srv/deep/file", 4)]) == b"two"
        await at.files.remove("/srv", tree=True)
        with pytest.raises(BangerError) as caught:
            await at.files.entry("/srv")
        assert caught.value.kind is ErrorKind.NOT_FOUND

    guest.ask(work)


def test_overlay_is_frozen_with_the_disk_below_it(guest: Machine) -> None:
    guest.ask(freezes_and_thaws("/"))


def test_frozen_guest_thaws_by_its_own_clock_and_for_the_next_host(guest: Machine) -> None:
    async def freeze(at: AgentGuest) -> None:
        await at.machine.freeze(["/"], 60)
        await at.machine.freeze(["/"], 60)  # as a host that does not know whether it was heard

    async def thaw(at: AgentGuest) -> None:
        process = await writer(at, "")
        assert await is_held_up(process)
        await at.machine.thaw(["/"])
        await at.machine.thaw(["/"])
        assert (await asyncio.wait_for(process.wait(), PATIENCE_S)).code == 0
        await at.machine.freeze(["/"], 2)
        process = await writer(at, "")
        assert (await asyncio.wait_for(process.wait(), PATIENCE_S)).code == 0

    guest.ask(freeze)
    guest.ask(thaw)
