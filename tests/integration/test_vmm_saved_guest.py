"""A real guest that is saved while it is used, and others that go on from there: memory, disk, console and agent."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.link import AgentLink
from banger.core.cancel import Deadline
from banger.core.console import boot_marks
from banger.core.exec import ExecRequest
from banger.core.operation import Operation
from banger.core.ports import AGENT_SOCKET, Drive, Machine, SavedMachine, UserNic
from banger.guest.boot import LinuxGuestBoot
from banger.layout import Layout
from banger.vmm.qemu import qmp
from banger.vmm.qemu.binary import find_binary
from banger.vmm.qemu.launch import qmp_path
from tests.support.machines import Rig, machine_of, obstacle_to
from tests.support.qemu_boot import (
    BOOT_TIMEOUT_S,
    busybox_tree,
    debian_kernel,
    guest_config,
    make_ssh_key,
    needs_qemu,
    overlay_disks,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, needs_qemu]


@dataclass(frozen=True)
class World:
    """A guest that has booted, and what is needed for machines like it."""

    rig: Rig
    parent: Machine
    settings: dict[str, object]
    drives: Sequence[Drive]

    @property
    def disk(self) -> Path:
        """The one that it writes to."""
        return self.drives[0].path

    def fork(self, name: str, saved: SavedMachine, disk: Path) -> Machine:
        own = self.rig.home / f"{name}.ext4"
        shutil.copyfile(disk, own)
        drives = [replace(one, path=own) if one.path == self.disk else one for one in self.drives]
        config = self.rig.config(name, **self.settings, devices=(*drives, UserNic()), saved=saved)
        fork = machine_of(config, self.rig.vmm.launch(config, lambda _: None))
        self.rig.vmm.resume(fork)
        return fork

    def save(self, machine: Machine, name: str) -> tuple[SavedMachine, Path]:
        """The machine, and its disk of the same instant."""
        into, disk = self.rig.home / name, self.rig.home / f"{name}.disk"
        into.mkdir()
        return self.rig.vmm.save(machine, into, lambda: _copy(self.disk, disk), lambda _: None), disk


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


@pytest.fixture(scope="module", params=["qemu-microvm", "qemu-q35"])
def world(request: pytest.FixtureRequest, session_root: Path) -> Iterator[World]:
    if obstacle := obstacle_to(request.param):
        pytest.skip(obstacle)
    home = Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp"))
    rig = Rig.build(request.param, home, session_root / "proofs")
    kernel, boot = debian_kernel(), LinuxGuestBoot(Layout(home, home, home, home / "cache"))
    tree = busybox_tree(home / "tree", "sh cat sleep mount mkdir dd sync md5sum")
    drives = [Drive(one.path, one.serial, one.read_only) for one in overlay_disks(home, tree, 64)]
    config = rig.config()
    toolbox = boot.toolbox(kernel, "kernel", Operation("vm.start", "web"))
    boot.initrd(toolbox, guest_config(make_ssh_key(home)), config.initrd)
    settings: dict[str, object] = {
        "kernel": kernel / "vmlinuz",
        "cmdline": boot.cmdline(),
        "memory_mib": 256,
    }
    config = replace(config, **settings, devices=(*drives, UserNic()))  # type: ignore[arg-type]
    parent = machine_of(config, rig.vmm.launch(config, lambda _: None))
    eventually(
        lambda: boot_marks(config.console_log.read_text(errors="replace")).ready_s, BOOT_TIMEOUT_S, "the guest is ready"
    )
    yield World(rig, parent, settings, drives)
    rig.close()


def ask(machine: Machine, work: Callable[[AgentGuest], Coroutine[Any, Any, str]]) -> str:
    """In a session of its own."""

    async def asking() -> str:
        link = AgentLink("guest-1", Endpoint(machine.run_dir / AGENT_SOCKET))
        await link.connect(BOOT_TIMEOUT_S)
        try:
            return await work(AgentGuest("guest-1", link))
        finally:
            link.drop()
            await asyncio.sleep(0)

    return asyncio.run(asking())


def shell(machine: Machine, script: str) -> str:
    async def run(guest: AgentGuest) -> str:
        process = await guest.exec(ExecRequest(("/bin/sh", "-ec", script)))
        said = b"".join([data async for _, data in process.output()]).decode()
        assert (await process.wait()).code == 0, said
        return said

    return ask(machine, run)


def test_forks_have_memory_and_disk_of_the_instant_and_what_they_write_is_their_own(world: World) -> None:
    shell(
        world.parent,
        "mkdir -p /m; mount -t tmpfs tmpfs /m; dd if=/dev/urandom of=/m/big bs=64k count=64 2>/dev/null; "
        "echo then > /m/word; echo then > /word; sync",
    )
    big = shell(world.parent, "md5sum /m/big")
    saved, disk = world.save(world.parent, "first")
    shell(world.parent, "echo later > /m/word; echo later > /word; sync; echo x >> /m/big")
    for name in ("one", "two"):
        fork = world.fork(name, saved, disk)
        assert shell(fork, "cat /m/word /word; md5sum /m/big") == f"then\nthen\n{big}"
        shell(fork, f"echo {name} > /m/word; echo {name} > /word; echo said-by-{name} > /dev/console; sync")
        eventually(
            lambda at=fork, what=f"said-by-{name}": what in at.console_log.read_text(errors="replace"),  # type: ignore[misc]
            what="the console goes on",
        )
        assert shell(fork, "cat /m/word /word") == f"{name}\n{name}\n"
    assert shell(world.parent, "cat /m/word /word") == "later\nlater\n"
    assert "said-by" not in world.parent.console_log.read_text(errors="replace")


def test_device_whose_ring_was_copied_earlier_works_in_a_fork(world: World) -> None:
    """The emulator may have forgotten the page since: the device would be found out of step with it, and given up."""
    if not find_binary().forgets_pages:
        pytest.skip("this QEMU forgets no pages, and none are compared")
    rings = avail_indices(world.parent)
    assert len(rings) == 2
    disk = world.rig.home / "third.disk"
    into = world.rig.home / "third"
    into.mkdir()

    def standing() -> None:
        _copy(world.disk, disk)
        with (into / "memory").open("r+b", buffering=0) as memory:
            for address in rings:
                os.pwrite(memory.fileno(), b"\x00\x70", address)

    saved = world.rig.vmm.save(world.parent, into, standing, lambda _: None)
    fork = world.fork("three", saved, disk)
    assert shell(fork, "echo 3 > /proc/sys/vm/drop_caches; cat /bin/busybox | md5sum; echo x > /y; sync; cat /y")
    assert shell(world.parent, "echo it goes on, too") == "it goes on, too\n"


def avail_indices(machine: Machine) -> list[int]:
    """Addresses in a guest of what says how many requests its disks have been given (virtio 1.2, 2.7.6)."""
    with qmp.session(qmp_path(machine.run_dir), Deadline.after(10)) as monitor:
        disks = [one["path"] for one in monitor.execute("x-query-virtio") if one["name"] == "virtio-blk"]
        status = "x-query-virtio-queue-status"
        return [int(monitor.execute(status, {"path": one, "queue": 0})["vring-avail"]) + 2 for one in disks]


def test_session_with_the_agent_lasts_through_a_save(world: World) -> None:
    async def talk(guest: AgentGuest) -> str:
        process = await guest.exec(ExecRequest(("cat",)))
        output = process.output()
        said = b""
        for word in (b"before ", b"after"):
            await process.write_stdin(word)
            while not said.endswith(word):
                said += (await anext(output))[1]
            if word == b"before ":
                await asyncio.to_thread(world.save, world.parent, "second")
        await process.close()
        return said.decode()

    assert ask(world.parent, talk) == "before after"
