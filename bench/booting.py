"""How much banger adds to a boot: `vm run IMAGE -- true` against a QEMU command line typed by hand."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.link import AgentLink
from banger.core.exec import ExecRequest
from banger.core.ports import AGENT_PORT, AGENT_SOCKET, GuestConfig, GuestNetwork
from banger.guest.boot import LinuxGuestBoot
from banger.host.user_network import ADDRESS, GATEWAY, NAMESERVER
from banger.layout import Layout
from bench import unit
from bench.measure import Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home
from tests.support.waiting import eventually

#: What the guest's init writes to the console once its agent is started.
READY = "banger: ready"
#: 300 ms; where a unit of work takes longer than the 12 ms that it was set for, as many units.
OVERHEAD_S, OVERHEAD_UNITS = 0.3, 25.0
TEMPLATE = "template"


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Both boot the same kernel, initrd and root file system, and end when the agent has run its first command."""
    with banger_home(root) as home:
        home.run("vm", "run", "debian", "--name", TEMPLATE, "--detach").ok()
        machine = _by_hand(home)
        home.run("vm", "stop", TEMPLATE).ok()
        medians = interleaved(
            {"banger": lambda: _banger(home), "by hand": lambda: machine.boot(root), "unit": unit.seconds},
            rounds,
        )
    yield Comparison(
        "vm run -- true vs a hand-written QEMU command line",
        medians["banger"],
        medians["by hand"],
        max(OVERHEAD_S, round(OVERHEAD_UNITS * medians["unit"], 3)),
        limit_is_difference=True,
    )


def _banger(home: BangerHome) -> float:
    seconds = timed(home.cli.argv("vm", "run", "debian", "--name", "measured", "--", "true"), home.cli.env)
    home.run("vm", "delete", "--force", "measured").ok()
    return seconds


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a person who knows all the tricks would type, with the parts that banger made."""

    kernel: str
    initrd: Path
    append: str
    rootfs: Path
    disk_mib: int
    memory_mib: int
    cpus: int
    accelerator: str

    def boot(self, root: Path) -> float:
        """Seconds from starting QEMU to the end of the first command; the machine is killed afterwards."""
        with tempfile.TemporaryDirectory(dir=root) as directory:
            work = Path(directory)
            disk = work / "disk"
            with disk.open("wb") as file:
                file.truncate(self.disk_mib << 20)
            subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True, env={"PATH": "/usr/sbin:/sbin"})
            console = work / "console"
            started = time.perf_counter()
            with subprocess.Popen(self._qemu(disk, console, work / AGENT_SOCKET), stdin=subprocess.DEVNULL) as process:
                try:
                    eventually(lambda: console.exists() and READY in console.read_text(errors="replace"), 120, READY)
                    asyncio.run(_first_command(work / AGENT_SOCKET))
                    return time.perf_counter() - started
                finally:
                    process.kill()

    def _qemu(self, disk: Path, console: Path, agent: Path) -> Sequence[str]:
        accelerator = ["-accel", "kvm", "-cpu", "host"] if self.accelerator == "kvm" else []
        return [
            "qemu-system-x86_64",
            "-M", "microvm,acpi=on,pit=on,pic=on,rtc=on",
            *(accelerator or ["-accel", "tcg,thread=multi", "-cpu", "max"]),
            "-m", str(self.memory_mib), "-smp", str(self.cpus),
            "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
            "-kernel", self.kernel, "-initrd", str(self.initrd), "-append", self.append,
            "-serial", f"file:{console}",
            "-drive", f"id=root,file={self.rootfs},format=raw,if=none,readonly=on",
            "-device", "virtio-blk-device,drive=root,serial=root",
            "-drive", f"id=data,file={disk},format=raw,if=none",
            "-device", "virtio-blk-device,drive=data,serial=data",
            "-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net",
            "-chardev", f"socket,id=agent,path={agent},server=on,wait=off", "-device", "virtio-serial-device",
            "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}",
        ]  # fmt: skip


async def _first_command(socket: Path) -> None:
    link = AgentLink("by-hand", Endpoint(socket))
    await link.connect(60.0)
    process = await AgentGuest("by-hand", link).exec(ExecRequest(("true",)))
    assert (await process.wait()).code == 0
    link.drop()


def _by_hand(home: BangerHome) -> ByHand:
    """Read what a running machine of banger was started with; the initrd, which it deletes, is made once more."""
    vm = home.json("vm", "show", TEMPLATE)
    argv = Path(f"/proc/{vm['pid']}/cmdline").read_text(encoding="utf-8").split("\0")
    config = GuestConfig(
        hostname="by-hand",
        authorized_key=(home.data / "ssh" / "id_ed25519.pub").read_text(),
        host_key_seed=os.urandom(32),
        init="auto",
        env=(),
        network=GuestNetwork(ADDRESS, GATEWAY, NAMESERVER),
        files={},
    )
    toolbox = next((home.path / "cache" / "toolbox").iterdir())
    LinuxGuestBoot(Layout.from_environment(home.cli.env)).initrd(toolbox, config, home.path / "initrd")
    return ByHand(
        kernel=_value(argv, "-kernel"),
        initrd=home.path / "initrd",
        append=_value(argv, "-append"),
        rootfs=home.data / "images" / vm["image_id"] / "rootfs.ext4",
        disk_mib=vm["spec"]["disk_mib"],
        memory_mib=vm["spec"]["memory_mib"],
        cpus=vm["spec"]["cpus"],
        accelerator=vm["accelerator"],
    )


def _value(argv: Sequence[str], option: str) -> str:
    return argv[argv.index(option) + 1]
