"""Single files of a guest, and the guest as a machine, by the real agent: the methods of the `Guests` port."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import EntryKind, GuestEntry, GuestIdentity, WriteOptions
from tests.support.agent_world import AgentWorld, needs_agent

pytest_plugins = ("tests.support.agent_fixtures",)
pytestmark = needs_agent


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _all(items: AsyncGenerator[Any]) -> list[Any]:
    return [item async for item in items]


def _names(world: AgentWorld, path: Path, user: str = "") -> dict[str, GuestEntry]:
    return {entry.name: entry for entry in world.do(_all(world.guest.files.list(str(path), user)))}


# -- files -------------------------------------------------------------------------------------------------


def test_directory_is_listed_with_what_every_entry_is(world: AgentWorld, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_bytes(b"12345")
    (place / "file").chmod(0o640)
    os.utime(place / "file", ns=(0, 1_500_000_000_123_456_789))
    (place / "a\nb").mkdir()
    (place / "link").symlink_to("/nowhere")
    os.mkfifo(place / "pipe")
    Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe")).touch()
    found = _names(world, place)
    assert {name: entry.kind for name, entry in found.items()} == {
        "file": EntryKind.FILE,
        "a\nb": EntryKind.DIRECTORY,
        "link": EntryKind.LINK,
        "pipe": EntryKind.PIPE,
        "\udcff\udcfe": EntryKind.FILE,
    }
    file = found["file"]
    assert (file.size_bytes, file.mode, file.uid, file.modified_ns) == (
        5,
        0o640,
        os.getuid(),
        1_500_000_000_123_456_789,
    )
    assert found["link"].target == "/nowhere"
    assert world.do(world.guest.files.entry(str(place / "link"))).kind is EntryKind.LINK


def test_large_directory_is_listed_piece_by_piece_and_may_be_left(world: AgentWorld, tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:0200}").touch()

    async def first() -> GuestEntry:
        async with aclosing(world.guest.files.list(str(tmp_path))) as entries:
            return await anext(entries)

    assert len(_names(world, tmp_path)) == 3001  # and the agent's own place
    assert world.do(first()).name
    assert world.exec("true").status.code == 0


def test_file_is_written_read_in_part_renamed_and_removed(world: AgentWorld, tmp_path: Path) -> None:
    files, path = world.guest.files, str(tmp_path / "deep" / "er" / "file")

    async def scenario() -> tuple[object, ...]:
        await files.mkdir(str(tmp_path / "deep" / "er"), parents=True)
        await files.mkdir(str(tmp_path / "deep" / "er"), parents=True)
        written = await files.write(path, _pieces(b"hello ", b"world"), WriteOptions(mode=0o600, durable=True))
        await files.write(path, _pieces(b"W"), WriteOptions(offset=6, create=False))
        await files.write(path, _pieces(b"!"), WriteOptions(append=True))
        whole = b"".join(await _all(files.read(path)))
        part = b"".join(await _all(files.read(path, 6, 5)))
        await files.rename(path, str(tmp_path / "moved"))
        mode = (await files.entry(str(tmp_path / "moved"))).mode
        await files.remove(str(tmp_path / "deep"), tree=True)
        return written, whole, part, mode

    assert world.do(scenario()) == (11, b"hello World!", b"World", 0o600)
    assert (tmp_path / "moved").read_bytes() == b"hello World!"
    assert not (tmp_path / "deep").exists()


def test_large_file_goes_in_and_out_whole(world: AgentWorld, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    path = str(tmp_path / "big")
    assert world.do(world.guest.files.write(path, _pieces(data))) == len(data)
    assert b"".join(world.do(_all(world.guest.files.read(path)))) == data


def test_reading_that_is_left_ends_in_the_guest(world: AgentWorld) -> None:
    async def scenario() -> int:
        async with aclosing(world.guest.files.read("/dev/zero")) as data:
            await anext(data)
        return world.guests.served(world.vm.id)

    assert world.do(scenario()) == 0


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (lambda files, place: files.entry(f"{place}/none"), ErrorKind.NOT_FOUND),
        (lambda files, place: _all(files.list(f"{place}/none")), ErrorKind.NOT_FOUND),
        (lambda files, place: _all(files.list(f"{place}/file")), ErrorKind.NOT_FOUND),
        (lambda files, place: _all(files.read(f"{place}/none")), ErrorKind.NOT_FOUND),
        (lambda files, place: _all(files.read(f"{place}")), ErrorKind.CONFLICT),
        (lambda files, place: files.mkdir(f"{place}/file"), ErrorKind.ALREADY_EXISTS),
        (lambda files, place: files.mkdir(f"{place}/none/deep"), ErrorKind.NOT_FOUND),
        (lambda files, place: files.remove(place), ErrorKind.CONFLICT),
        (lambda files, place: files.remove(f"{place}/none"), ErrorKind.NOT_FOUND),
        (lambda files, place: files.rename(f"{place}/none", f"{place}/b"), ErrorKind.NOT_FOUND),
        (lambda files, place: files.rename(f"{place}/file", "/proc/b"), ErrorKind.CONFLICT),
        (lambda files, place: files.write(place, _pieces(b"x")), ErrorKind.CONFLICT),
        (lambda files, place: files.write(f"{place}/new", _pieces(b"x"), WriteOptions(create=False)), ErrorKind.NOT_FOUND),
        (lambda files, place: files.write(f"{place}/file", _pieces(b"x"), WriteOptions(exclusive=True)), ErrorKind.ALREADY_EXISTS),
        (lambda files, place: files.write("/dev/full", _pieces(b"x")), ErrorKind.EXHAUSTED),
        (lambda files, place: files.entry(f"{place}/{'x' * 300}"), ErrorKind.INVALID),
        (lambda files, place: files.entry("relative"), ErrorKind.USAGE),
        (lambda files, place: files.entry(f"{place}/file\0"), ErrorKind.USAGE),
        (lambda files, place: _all(files.read(f"{place}/file", -1)), ErrorKind.USAGE),
        (lambda files, place: files.entry(f"{place}/file", "nobody-of-that-name"), ErrorKind.NOT_FOUND),
    ],
)  # fmt: skip
def test_what_the_guest_refuses_is_raised_as_its_kernel_means_it(
    world: AgentWorld, tmp_path: Path, act: Any, kind: ErrorKind
) -> None:
    (tmp_path / "file").write_bytes(b"x")

    async def scenario() -> None:
        await act(world.guest.files, str(tmp_path))

    with pytest.raises(BangerError) as caught:
        world.do(scenario())
    assert caught.value.kind is kind, caught.value
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_files_of_a_user_are_touched_with_that_users_rights(world: AgentWorld, tmp_path: Path) -> None:
    for directory in [tmp_path, *tmp_path.parents][:-2]:
        directory.chmod(directory.stat().st_mode | 0o055)
    readable = tmp_path / "names-only"
    readable.mkdir(mode=0o744)
    (readable / "secret").write_bytes(b"x" * 99)
    (tmp_path / "private").write_bytes(b"mine")
    (tmp_path / "private").chmod(0o600)
    files = world.guest.files

    async def read() -> None:
        await _all(files.read(str(tmp_path / "private"), user="65534:65534"))

    with pytest.raises(BangerError) as caught:
        world.do(read())
    assert caught.value.kind is ErrorKind.DENIED
    with pytest.raises(BangerError) as caught:
        world.do(files.mkdir(str(tmp_path / "new"), user="65534"))
    assert caught.value.kind is ErrorKind.DENIED
    entry = _names(world, readable, "65534:65534")["secret"]  # its name may be read, and nothing else
    assert (entry.kind, entry.size_bytes) == (EntryKind.FILE, 0)


# -- the machine -------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_machine(world: AgentWorld) -> None:
    facts = world.do(world.guest.machine.facts())
    assert abs(facts.clock_ns - time.time_ns()) < 60e9
    assert facts.kernel == os.uname().release
    assert facts.hostname == os.uname().nodename
    assert facts.cpu.count >= 1
    assert 0 < facts.cpu.busy_ms < facts.cpu.total_ms
    assert 0 < facts.memory.available_bytes < facts.memory.total_bytes
    assert facts.processes > 1
    root = next(disk for disk in facts.disks if disk.mount_point == "/")
    assert 0 < root.free_bytes <= root.total_bytes
    devices = [Path(disk.mount_point).stat().st_dev for disk in facts.disks]
    assert len(set(devices)) == len(devices), "a file system is told of once, wherever it is mounted"
    loopback = next(net for net in facts.nets if net.name == "lo")
    assert "127.0.0.1/8" in loopback.addresses


def test_clock_is_that_of_the_machine(world: AgentWorld) -> None:
    assert abs(world.do(world.guest.machine.clock()) - time.time_ns()) < 60e9


@pytest.mark.parametrize(
    "act",
    [
        lambda machine: machine.set_clock(0),
        lambda machine: machine.set_clock(1 << 63),
        lambda machine: machine.add_entropy(bytes(31)),
        lambda machine: machine.add_entropy(bytes(513)),
        lambda machine: machine.freeze(["/"], 0),
        lambda machine: machine.freeze(["/"], 61),
        lambda machine: machine.freeze(["relative"], 1),
        lambda machine: machine.identify(GuestIdentity(hostname="a\0b")),
    ],
)
def test_what_no_machine_can_do_is_not_sent(world: AgentWorld, act: Any) -> None:
    async def scenario() -> None:
        await act(world.guest.machine)

    with pytest.raises(BangerError) as caught:
        world.do(scenario())
    assert caught.value.kind is ErrorKind.USAGE
    assert world.agent.greeted == 0


@pytest.mark.parametrize(
    "identity",
    [GuestIdentity(hostname="no name!"), GuestIdentity(machine_id="xyz"), GuestIdentity(boot_id="1234")],
)
def test_identity_that_is_none_is_refused_and_changes_nothing(world: AgentWorld, identity: GuestIdentity) -> None:
    with pytest.raises(BangerError) as caught:
        world.do(world.guest.machine.identify(identity))
    assert caught.value.kind is ErrorKind.INVALID
    assert world.do(world.guest.machine.facts()).hostname == os.uname().nodename


def test_file_system_that_cannot_be_frozen_is_told_with_its_name(world: AgentWorld) -> None:
    with pytest.raises(BangerError) as caught:
        world.do(world.guest.machine.freeze(["/proc"], 1))
    assert caught.value.message == "the guest cannot freeze its file systems"
    assert '"/proc"' in caught.value.cause
