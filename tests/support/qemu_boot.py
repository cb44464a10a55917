"""A QEMU microvm started by hand: what the guest tests boot without the drivers, the store or the daemon."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from banger.agent.endpoint import Endpoint
from banger.agent.guest import AgentGuest
from banger.agent.link import AgentLink
from banger.core.cancel import CancelToken
from banger.core.console import boot_marks
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.operation import Operation
from banger.core.ports import AGENT_PORT, AGENT_SOCKET, SSH_PORT, GuestConfig, GuestNetwork, KernelRequest
from banger.guest.boot import LinuxGuestBoot
from banger.guest.hostkey import public_key
from banger.kernels.apt_source import AptKernelSource, resolve
from tests.support.waiting import eventually

#: Where tests keep what takes long to make.
CACHE = Path(__file__).parents[2] / ".cache" / "tests"
BOOT_TIMEOUT_S = 90.0
SEED = bytes(range(32))

#: Emulated, a microvm has no timers to calibrate its clocks against; the rates are made up.
_CLOCKS = "tsc_early_khz=2600000 lpj=5200000 no_timer_check"
#: With the right rate, the guest's clock keeps time.
_RIGHT_CLOCKS = "tsc_early_khz={} no_timer_check tsc=reliable"

needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-system-x86_64") and shutil.which("mke2fs") and shutil.which("ssh")),
    reason="needs qemu-system-x86_64, mke2fs and ssh",
)


@dataclass(frozen=True)
class Disk:
    """A raw disk image and the serial that the guest finds it by."""

    path: Path
    serial: str
    read_only: bool = False


@dataclass
class Machine:
    """A running guest."""

    process: subprocess.Popen[bytes]
    console_log: Path
    port: int
    directory: Path
    has_ssh: bool = False

    @property
    def console(self) -> str:
        """What the guest has written to its console."""
        return self.console_log.read_text(errors="replace")

    def ssh_options(self) -> list[str]:
        """OpenSSH options: our key, and no host but the one whose key was made from :data:`SEED`."""
        known_hosts = self.directory / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_key(SEED)}\n")
        options = {
            "IdentityFile": self.directory / "id",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": known_hosts,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "LogLevel": "ERROR",
            "ControlMaster": "auto",
            "ControlPath": self.directory / "ctl-%r",
            "ControlPersist": "60",
        }
        return ["-F", "none", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]

    def ssh(self, command: str, *options: str, user: str = "root", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command through banger's ssh server; ``command`` is what the login shell gets, unchanged.

        The first of two equal options counts for ssh, so ``options`` override the usual ones.
        """
        self.start_ssh()
        words = ["ssh", *options, *self.ssh_options(), "-p", str(self.port), f"{user}@127.0.0.1"]
        words += [command] if command else []
        return subprocess.run(words, input=stdin, capture_output=True, timeout=60, check=False, text=True)

    def run(
        self, *argv: str, user: str = "", workdir: str = "", env: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """``banger-exec`` as the guest channel sends it."""
        words = ["banger-exec", *(["-u", user] if user else []), *(["-w", workdir] if workdir else [])]
        words += [word for assignment in env for word in ("-e", assignment)]
        return self.ssh(shlex.join([*words, "--", *argv]))

    def start_ssh(self) -> None:
        """Have banger's ssh server run, on every address of the guest."""

        async def start(guest: AgentGuest) -> None:
            process = await guest.exec(ExecRequest(("/run/banger/bin/ssh-server", str(SSH_PORT))))
            said = [data async for _, data in process.output()]
            assert (await process.wait()).code == 0, said

        if not self.has_ssh:
            asyncio.run(self._with_agent(start))
            self.has_ssh = True

    def ask(self, work: Callable[[AgentGuest], Coroutine[Any, Any, None]]) -> None:
        """Do something through the agent, in a session of its own."""
        asyncio.run(self._with_agent(work))

    async def _with_agent(self, work: Callable[[AgentGuest], Awaitable[None]]) -> None:
        link = AgentLink("guest-1", Endpoint(self.directory / AGENT_SOCKET))
        await link.connect(BOOT_TIMEOUT_S)
        try:
            await work(AgentGuest("guest-1", link))
        finally:
            link.drop()
            await asyncio.sleep(0)  # or the connection stays, and nobody else can have one

    def kill_all(self) -> None:
        """Have every process but the first killed, the agent too; its host hears when another one has taken its place."""
        asyncio.run(self._with_agent(kill_all))

    def power_off(self) -> None:
        """Have the guest power itself off, as the daemon does."""
        asyncio.run(self._with_agent(lambda guest: guest.power_off()))

    def wait_until_off(self, timeout_s: float = 60.0) -> int:
        """Wait for the machine to end by itself; QEMU's exit status."""
        return self.process.wait(timeout_s)


async def kill_all(guest: AgentGuest) -> None:
    """Have every process but the first killed, from within."""

    async def kill() -> None:  # the agent may be killed before it has told of the command's start
        process = await guest.exec(ExecRequest(("busybox", "kill", "-9", "-1")))
        await asyncio.wait_for(process.wait(), BOOT_TIMEOUT_S)

    with pytest.raises(BangerError) as caught:
        await kill()
    assert caught.value.kind is ErrorKind.UNKNOWN_OUTCOME


def debian_kernel() -> Path:
    """A directory as a kernel source fills it, with the distribution's newest cloud kernel; made once and kept."""
    package = "linux-image-cloud-amd64"
    try:
        newest = resolve(package, CancelToken())[0]
    except BangerError as error:
        pytest.skip(f"no kernel package: {error}")
    target = CACHE / f"staged-{newest}"
    if not target.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".kernel-") as scratch:
            staging = Path(scratch, "kernel")
            staging.mkdir()
            AptKernelSource().build(KernelRequest(source=f"apt:{package}"), staging, Operation("kernel.pull", package))
            staging.rename(target)
    return target


def make_ext4(path: Path, size_mib: int, tree: Path | None = None) -> Path:
    """A sparse ext4, empty or with the content of ``tree``."""
    source = ["-d", str(tree)] if tree else []
    words = ["mke2fs", "-q", "-F", "-t", "ext4", *source, str(path), f"{size_mib}M"]
    subprocess.run(words, check=True, capture_output=True)
    return path


def busybox_tree(tree: Path, applets: str, directories: Sequence[str] = ()) -> Path:
    """A directory that becomes an image: the host's static busybox under the names of ``applets``, and no libc."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("needs a static busybox")
    for directory in ("bin", *directories):
        (tree / directory).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in applets.split():
        (tree / "bin" / applet).symlink_to("busybox")
    return tree


def overlay_disks(place: Path, tree: Path, data_mib: int = 256) -> list[Disk]:
    """The disks of a VM on the overlay driver: an empty writable one, and an image with the content of ``tree``."""
    data = Disk(make_ext4(place / "data.ext4", data_mib), "data")
    return [data, Disk(make_ext4(place / "root.ext4", 32, tree), "root", read_only=True)]


def make_ssh_key(directory: Path) -> str:
    """Make ``directory/id`` and return its public key line."""
    key = directory / "id"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key.with_suffix(".pub").read_text()


def guest_config(authorized_key: str, **changes: object) -> GuestConfig:
    """A guest's settings, with the identity that :class:`Machine` expects."""
    settings: dict[str, object] = {
        "hostname": "guest-1",
        "authorized_key": authorized_key,
        "host_key_seed": SEED,
        "init": "auto",
        "env": (),
        "network": GuestNetwork("10.0.2.15/24", "10.0.2.2", "10.0.2.3"),
        "files": {},
    }
    return GuestConfig(**{**settings, **changes})  # type: ignore[arg-type]


@contextmanager
def machine(
    boot: LinuxGuestBoot,
    kernel_dir: Path,
    disks: Sequence[Disk],
    directory: Path,
    config: GuestConfig,
    options: Sequence[str] = (),
    *,
    tsc_khz: int = 0,
) -> Iterator[Machine]:
    """Boot, yield the machine (ready or not) and end it.

    Args:
        options: further ones of QEMU.
        tsc_khz: rate of this host's time stamp counter, for a guest whose clock has to be right.
    """
    initrd = directory / "initrd.img"
    boot.initrd(boot.toolbox(kernel_dir, "test-kernel", Operation("vm.start", "guest-1")), config, initrd)
    console_log = directory / "console.log"
    console_log.write_bytes(b"")
    port = _free_port()
    network = ["-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:{SSH_PORT}"]
    network += ["-device", "virtio-net-device,netdev=net0"]
    clocks = _RIGHT_CLOCKS.format(tsc_khz) if tsc_khz else _CLOCKS
    words = [
        "qemu-system-x86_64", "-M", "microvm,acpi=on,pit=on,pic=on,rtc=on", "-accel", "tcg,thread=multi", "-cpu", "max",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "512M",
        "-kernel", str(kernel_dir / "vmlinuz"), "-initrd", str(initrd),
        "-append", f"console=ttyS0 reboot=t panic=-1 {clocks} {boot.cmdline()}",
        "-chardev", f"file,id=console,path={console_log}", "-serial", "chardev:console",
        *network,
        "-object", "rng-builtin,id=rng0", "-device", "virtio-rng-device,rng=rng0",
        "-chardev", f"socket,id=agent,path={directory / AGENT_SOCKET},server=on,wait=off", "-device", "virtio-serial-device",
        "-device", f"virtserialport,chardev=agent,name={AGENT_PORT}",
    ]  # fmt: skip
    for index, disk in enumerate(disks):
        read_only = "on" if disk.read_only else "off"
        words += [
            "-blockdev",
            f"raw,node-name=d{index},read-only={read_only},file.driver=file,file.filename={disk.path}",
        ]
        words += ["-device", f"virtio-blk-device,drive=d{index},serial={disk.serial}"]
    process = subprocess.Popen([*words, *options], stdin=subprocess.DEVNULL)
    running = Machine(process, console_log, port, directory)
    try:
        yield running
    finally:
        for control in directory.glob("ctl-*"):
            subprocess.run(["ssh", "-o", f"ControlPath={control}", "-O", "exit", "x"], capture_output=True, check=False)
        process.kill()
        process.wait()


def wait_until_ready(running: Machine) -> float:
    """Wait for the ready marker; the guest's uptime then, in seconds."""

    def ready() -> float | None:
        marks = boot_marks(running.console)
        assert not marks.failure, running.console
        assert running.process.poll() is None, running.console
        return marks.ready_s

    return eventually(ready, BOOT_TIMEOUT_S, "the guest is ready") or 0.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
