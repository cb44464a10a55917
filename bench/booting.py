"""How much banger adds to a boot: `vm run IMAGE -- true` against a QEMU command line typed by hand."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger.client import Client
from bench.measure import Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home
from tests.support.waiting import eventually

#: What the guest's init writes to the console once its ssh server listens.
READY = "banger: ready"
OVERHEAD_S = 0.3
TEMPLATE = "template"


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Both boot the same kernel, initrd and root file system, and end when ssh has run its first command."""
    with banger_home(root) as home:
        home.run("vm", "run", "debian", "--name", TEMPLATE, "--detach").ok()
        machine = _by_hand(home)
        home.run("vm", "stop", TEMPLATE).ok()
        medians = interleaved(
            {"banger": lambda: _banger(home), "by hand": lambda: machine.boot(root)},
            rounds,
        )
    yield Comparison(
        "vm run -- true vs a hand-written QEMU command line",
        medians["banger"],
        medians["by hand"],
        OVERHEAD_S,
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
    rootfs: str
    disk_mib: int
    memory_mib: int
    cpus: int
    accelerator: str
    guest_port: int
    access: dict[str, Any]

    def boot(self, root: Path) -> float:
        """Seconds from starting QEMU to the end of the first ssh command; the machine is killed afterwards."""
        with tempfile.TemporaryDirectory(dir=root) as directory:
            work = Path(directory)
            disk = work / "disk"
            with disk.open("wb") as file:
                file.truncate(self.disk_mib << 20)
            subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", disk], check=True, env={"PATH": "/usr/sbin:/sbin"})
            console = work / "console"
            started = time.perf_counter()
            with subprocess.Popen(self._qemu(disk, console), stdin=subprocess.DEVNULL) as process:
                try:
                    eventually(lambda: console.exists() and READY in console.read_text(errors="replace"), 120, READY)
                    subprocess.run(self._ssh(), check=True, stdin=subprocess.DEVNULL)
                    return time.perf_counter() - started
                finally:
                    process.kill()

    def _qemu(self, disk: Path, console: Path) -> Sequence[str]:
        accelerator = ["-accel", "kvm", "-cpu", "host"] if self.accelerator == "kvm" else []
        forward = f"hostfwd=tcp:127.0.0.1:{self.access['port']}-:{self.guest_port}"
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
            "-netdev", f"user,id=net,{forward}",
            "-device", "virtio-net-device,netdev=net",
        ]  # fmt: skip

    def _ssh(self) -> Sequence[str]:
        options = {
            "IdentityFile": self.access["private_key_path"],
            "UserKnownHostsFile": self.access["known_hosts_path"],
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", "-F", "none", *words, "-p", str(self.access["port"]), f"{self.access['user']}@127.0.0.1", "true"]


def _by_hand(home: BangerHome) -> ByHand:
    """Read what a running machine of banger was started with, and keep copies of what goes away with it."""
    vm = home.json("vm", "show", TEMPLATE)
    argv = Path(f"/proc/{vm['pid']}/cmdline").read_text().split("\0")
    initrd = home.path / "initrd"
    shutil.copyfile(_value(argv, "-initrd"), initrd)
    access = Client(home.socket).get(f"/v1/vms/{TEMPLATE}/access")
    known_hosts = home.path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{access['port']} {access['host_key']}\n")
    forward = next(word for word in _value(argv, "-netdev").split(",") if f":{access['port']}-" in word)
    return ByHand(
        kernel=_value(argv, "-kernel"),
        initrd=initrd,
        append=_value(argv, "-append"),
        rootfs=str(home.data / "images" / vm["image_id"] / "rootfs.ext4"),
        disk_mib=vm["spec"]["disk_mib"],
        memory_mib=vm["spec"]["memory_mib"],
        cpus=vm["spec"]["cpus"],
        accelerator=vm["accelerator"],
        guest_port=int(forward.rpartition(":")[2]),
        access={**access, "known_hosts_path": str(known_hosts)},
    )


def _value(argv: Sequence[str], option: str) -> str:
    return argv[argv.index(option) + 1]
