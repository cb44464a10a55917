"""The methods of the `Guests` port in a real guest: what cannot be tried on this machine itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from banger.agent import messages
from banger.agent.guest import AgentGuest
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.ports import GuestIdentity, GuestProcess, WriteOptions
from banger.guest.boot import LinuxGuestBoot
from banger.layout import Layout
from tests.support.frozen import PATIENCE_S, STILL_S, freezes_and_thaws, is_held_up, writer
from tests.support.qemu_boot import (
    Disk,
    Machine,
    busybox_tree,
    debian_kernel,
    guest_config,
    kill_all,
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
    disks = overlay_disks(place, busybox_tree(place / "tree", "sh cat sleep hostname", ("outer", "inner")))
    disks.append(Disk(debian_kernel() / "modules.ext4", "modules", read_only=True))
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
        assert {disk.mount_point: disk.type for disk in facts.disks}["/"] == "overlay"
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


def test_file_systems_that_stand_still_are_frozen_by_nobody_else_and_thaw_by_the_clock(guest: Machine) -> None:
    async def freeze(at: AgentGuest) -> None:
        assert await at.machine.freeze(["/", "/"], 60) == 1
        with pytest.raises(BangerError) as caught:
            await at.machine.freeze(["/"], 60)
        assert caught.value.kind is ErrorKind.CONFLICT
        process = await writer(at, "")
        assert await is_held_up(process)
        assert await at.machine.thaw(["/"]) == 1
        await _writes(process)
        await at.machine.freeze(["/"], 2)
        await _writes(await writer(at, ""))
        assert await at.machine.thaw(["/"]) == 0, "it did not last until then"

    guest.ask(freeze)


def test_freezing_ends_with_the_session(guest: Machine) -> None:
    async def freeze(at: AgentGuest) -> None:
        await at.machine.freeze(["/"], 60)

    async def write(at: AgentGuest) -> None:
        await _writes(await writer(at, ""))

    guest.ask(freeze)
    guest.ask(write)


def test_freezing_that_is_given_up_leaves_nothing_frozen(guest: Machine) -> None:
    async def give_up(at: AgentGuest) -> None:
        for ms in (0, 2, 5, 10, 20, 20, 20, 20, 20, 50, 100):
            freezing = asyncio.create_task(at.machine.freeze(["/"], 60))
            await asyncio.sleep(ms / 1000)
            if freezing.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await freezing
            else:  # it was done by then
                assert await freezing == await at.machine.thaw(["/"]) == 1
        await _writes(await writer(at, ""))
        assert await at.machine.freeze(["/"], 60) == 1
        assert await at.machine.thaw(["/"]) == 1

    guest.ask(give_up)


def test_freezing_that_takes_long_is_waited_for_by_the_next_when_it_was_given_up(guest: Machine) -> None:
    async def freeze(at: AgentGuest) -> None:
        given_up = await _hanging_freeze(at)
        given_up.cancel()
        behind = asyncio.create_task(at.machine.freeze(["/inner"], 60))
        assert not (await asyncio.wait((behind,), timeout=STILL_S))[0]
        await shown(at, "busybox", "fsfreeze", "--unfreeze", "/outer")
        assert await behind == await at.machine.thaw(["/inner"]) == 1
        await _unmount(at)

    guest.ask(freeze)


def test_agent_comes_back_though_a_process_of_the_killed_one_cannot_end(guest: Machine) -> None:
    async def freeze(at: AgentGuest) -> None:
        lost = await _hanging_freeze(at)
        await kill_all(at)
        with pytest.raises(BangerError):
            await lost

    async def thaw(at: AgentGuest) -> None:
        await shown(at, "busybox", "fsfreeze", "--unfreeze", "/outer")
        ended = "while busybox grep -qs banger-freezer /proc/[0-9]*/comm; do busybox usleep 50000; done"
        await asyncio.wait_for(shown(at, "sh", "-c", ended), PATIENCE_S)
        assert await at.machine.thaw(["/inner"]) == 1, "it was killed when it had frozen that"
        await _unmount(at)

    guest.ask(freeze)
    guest.ask(thaw)


def test_freezing_is_taken_back_after_its_success_was_told(guest: Machine) -> None:
    async def take_back(at: AgentGuest) -> None:
        asker = at.machine.asker
        stream = await asker.link.open(messages.freeze(60_000, ["/"]))
        assert messages.read_u32((await asker.answer(stream)).fields) == 1
        stream.take_back()
        await _writes(await writer(at, ""))

    guest.ask(take_back)


def test_freezer_that_somebody_kills_is_followed_by_one_that_thaws(guest: Machine) -> None:
    async def kill(at: AgentGuest) -> None:
        await at.machine.freeze(["/"], 60)
        named = "busybox grep -ls banger-freezer /proc/[0-9]*/comm"
        await shown(at, "sh", "-c", f"busybox kill -9 $({named} | busybox cut -d / -f 3)")
        await _writes(await writer(at, ""))
        assert await at.machine.freeze(["/"], 60) == 1
        assert await at.machine.thaw(["/"]) == 1

    guest.ask(kill)


def test_what_stood_still_when_the_agent_was_killed_can_be_thawed(guest: Machine) -> None:
    async def freeze(at: AgentGuest) -> None:
        await at.machine.freeze(["/"], 60)
        await kill_all(at)

    async def thaw(at: AgentGuest) -> None:
        process = await writer(at, "")
        assert await is_held_up(process)
        with pytest.raises(BangerError) as caught:
            await at.machine.freeze(["/"], 60)
        assert caught.value.kind is ErrorKind.CONFLICT
        assert await at.machine.thaw(["/"]) == 1
        await _writes(process)

    guest.ask(freeze)
    guest.ask(thaw)


async def _writes(process: GuestProcess) -> None:
    """It does so long before a freeze of a minute would have ended by itself."""
    assert (await asyncio.wait_for(process.wait(), PATIENCE_S / 2)).code == 0


async def _hanging_freeze(at: AgentGuest) -> asyncio.Task[int]:
    """A freeze of ``/inner`` that goes on until ``/outer``, where its image is, has thawed: it has something to write."""
    await shown(at, "busybox", "modprobe", "loop")
    for image, place in (("/image", "/outer"), ("/outer/image", "/inner")):
        made = f"busybox truncate -s 4M {image} && busybox mke2fs -F {image}"
        await shown(at, "sh", "-c", f"{made} && busybox mount -o loop {image} {place}")
    await shown(at, "sh", "-c", "busybox fsfreeze --freeze /outer && echo dirty >/inner/file")
    freezing = asyncio.create_task(at.machine.freeze(["/inner"], 60))
    assert not (await asyncio.wait((freezing,), timeout=STILL_S))[0]
    return freezing


async def _unmount(at: AgentGuest) -> None:
    await shown(at, "sh", "-c", "echo more >/inner/file && busybox umount /inner && busybox umount /outer")
