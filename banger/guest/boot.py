"""The initrd of a guest: the toolbox, made once per kernel, preceded by a small archive per VM."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Collection
from ipaddress import IPv4Interface
from pathlib import Path

from banger.core import clock
from banger.core.exec import ExecRequest
from banger.core.guest_command import environment_script, exec_command
from banger.core.operation import Operation
from banger.core.ports import AgentCarrier, GuestConfig, GuestNetwork, KernelFormat, Mount
from banger.guest.cpio import CpioWriter
from banger.guest.hostkey import dropbear_key
from banger.guest.programs import check_applets, find_programs
from banger.guest.toolbox import APPLETS, archive, fingerprint, scripts
from banger.kernels.image_file import extract_vmlinux, fault_of
from banger.kernels.modules import Module, read_modules
from banger.kernels.staging import KERNEL
from banger.layout import Layout
from banger.posix.elf import is_elf

#: The one mount that the guest's init makes besides its root (see ``data/init``).
HOME = Mount("home", "/root")
#: Drivers of the machines that banger makes; what a kernel has built in needs no module.
MODULES = (
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
    "overlay",
)
#: And of what carries the stream to the agent.
CARRIER_MODULES = {
    AgentCarrier.SERIAL: ("virtio_console",),
    AgentCarrier.VSOCK: ("vmw_vsock_virtio_transport",),
}


class LinuxGuestBoot:
    """Implements :class:`banger.core.ports.GuestBoot` with Linux, busybox and dropbear."""

    mounts: Collection[Mount] = (HOME,)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def toolbox(self, kernel_dir: Path, kernel_id: str, operation: Operation) -> Path:
        """The toolbox initrd for a kernel, from the cache or made now. Two makers at once do no harm.

        Raises:
            BangerError: ``unavailable`` if a program is neither installed nor to be had from the distribution.
        """
        programs = find_programs(self._layout.toolbox, operation)
        files = {**programs.files, **scripts()}
        target = self._layout.toolbox / f"{fingerprint(kernel_id, files)}.cpio"
        if not _marked_used(target):
            with operation.step("make toolbox"):
                check_applets(programs.busybox, APPLETS, operation)
                modules = _modules(kernel_dir / "modules.ext4")
                _write_atomically(target, archive(files, programs.loader, modules))
        return target

    def kernel(self, kernel_dir: Path, kernel_format: KernelFormat, operation: Operation) -> Path:
        """A kernel's file as it is, or uncompressed: that is made once, and kept beside it."""
        given, plain = kernel_dir / KERNEL, kernel_dir / "vmlinux"
        if kernel_format is KernelFormat.AS_IT_IS or is_elf(given):
            return given
        if not plain.exists():
            with operation.step("unpack kernel"):
                _write_atomically(plain, extract_vmlinux(given.read_bytes()))
        return plain

    def initrd(self, toolbox: Path, config: GuestConfig, target: Path) -> None:
        """Write ``target``: the per-VM archive, then the toolbox. Mode 0600: it holds the guest's host key."""
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out, toolbox.open("rb") as source:
            os.fchmod(descriptor, 0o600)
            out.write(vm_archive(config))
            shutil.copyfileobj(source, out, 1 << 20)

    def kernel_fault(self, kernel_dir: Path) -> str:
        """What is wrong with a kernel's file, or empty."""
        try:
            return fault_of((kernel_dir / KERNEL).read_bytes())
        except OSError as error:
            return f"it cannot be read ({error.strerror})"

    def cmdline(self, *, verbose: bool = False) -> str:
        """The kernel arguments that the toolbox's init wants.

        The kernel's own tests of its cryptography take longer than banger's whole init when emulated. With ``verbose``
        it says what it thinks notable, as soon as it can: a few lines. Each character leaves the guest, which nested
        virtualisation makes dear, so all that it has to say would take longer than the boot.

        The console is a log, so systemd is asked for no login prompt there (systemd-getty-generator(8)): in an image
        without udev it would wait 90 s for the terminal's device, and call itself "starting" for as long.
        """
        said = "earlycon=uart8250,io,0x3f8 loglevel=6" if verbose else "quiet"
        return f"{said} cryptomgr.notests=1 systemd.getty_auto=no"


def _marked_used(target: Path) -> bool:
    """Say that it is in use, so that it is not taken for stale; False if it is not there."""
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def vm_archive(config: GuestConfig) -> bytes:
    """The per-VM archive: settings, keys, environment, directories and extra files. It must come first in an initrd."""
    settings = {
        "id": config.vm_id,
        "hostname": config.hostname,
        "init": config.init,
        "epoch": str(int(clock.now().timestamp())),
        "root": config.root,
        "home": "yes" if HOME in config.mounts else "no",
        "drives": " ".join(config.drives),
        "carrier": config.carrier.value,
        "power_switch": "yes" if config.has_power_switch else "no",
        **_network_settings(config.network),
    }
    cpio = CpioWriter()
    cpio.file("etc/banger.conf", "".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items()).encode())
    cpio.file("etc/host_key", dropbear_key(config.host_key_seed), 0o600)
    cpio.file("etc/environment", environment_script(config.env), 0o600)
    cpio.file("etc/agent.env", "".join(f"{item}\0" for item in config.env).encode(errors="surrogateescape"), 0o600)
    cpio.file("etc/directories", "".join(f"{path}\n" for path in config.directories).encode())
    cpio.directory("home/.ssh", 0o700)
    cpio.file("home/.ssh/authorized_keys", f"{config.authorized_key.strip()}\n".encode(), 0o600)
    if config.command:
        command = exec_command(ExecRequest(tuple(config.command), user=config.user or "root", workdir=config.workdir))
        cpio.file("etc/command", f"command={shlex.quote(command)}\n".encode(), 0o600)
    for path, content in config.files.items():
        cpio.file(f"files/{path.strip('/')}", content)
    return cpio.finish()


def _network_settings(network: GuestNetwork) -> dict[str, str]:
    """Addresses as the scripts of the guest want them; what there is none of is empty."""
    interface = IPv4Interface(network.address)
    return {
        "address": str(interface.ip),
        "netmask": str(interface.netmask),
        "gateway": network.gateway,
        "nameserver": network.nameserver,
        "address6": network.address6,
        "gateway6": network.gateway6,
        "mtu": str(network.mtu or ""),
    }


def _modules(image: Path) -> dict[str, list[Module]]:
    """The modules of a kernel that every guest loads, under the empty name, and what each carrier needs besides."""
    common = read_modules(image, MODULES)
    known = {one.file_name for one in common}
    return {"": common} | {
        carrier.value: [one for one in read_modules(image, names) if one.file_name not in known]
        for carrier, names in CARRIER_MODULES.items()
    }


def _write_atomically(target: Path, content: bytes) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(target)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
