"""A machine's configuration as a QEMU command line. Pure: touches no file and starts nothing.

Options are those of QEMU 7.2 (``qemu-system-x86_64(1)``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import vmm_marker
from banger.core.ports import AGENT_PORT, AGENT_SOCKET, PORTS_PORT, PORTS_SOCKET, Drive, Nic, TapNic, VmmConfig

_T = TypeVar("_T")

#: What QEMU calls the host's end of the agent's stream.
AGENT_NODE = "agent"
#: In a VM's private directory, the socket of its monitor.
QMP_SOCKET = "qmp.sock"

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

#: The one option that the driver makes of a spec, a key of :data:`MACHINES`.
MACHINE = "machine"
#: Every one of them is needed on ``microvm``: ACPI to find the devices, the others to keep time under emulation.
MACHINES = {"microvm": "microvm,acpi=on,pit=on,pic=on,rtc=on", "q35": "q35"}
#: Accelerator and CPU. Told that string instructions are fast, Linux copies memory by ``rep movsb``, which TCG emulates
#: byte by byte: without ``erms`` and ``fsrm`` a guest's pipe carries five times as much.
ACCELERATORS = {"kvm": ("kvm", "host"), "tcg": ("tcg,thread=multi", "max,-erms,-fsrm")}

#: The console is the first serial port. ``-no-reboot`` turns a reset into an exit, which ``panic=-1`` asks for at once.
#: ``earlyprintk`` also gives the unpacker of a bzImage a voice, without which a damaged kernel halts in silence.
_KERNEL_ARGUMENTS = "console=ttyS0 earlyprintk=ttyS0,115200 reboot=t panic=-1"


@dataclass(frozen=True, slots=True)
class Binary:
    """A QEMU executable and what it was built with; ``data_dirs`` are where it finds firmware."""

    path: str
    version: str
    has_sandbox: bool
    data_dirs: tuple[str, ...] = ()

    @property
    def reads_memory_files(self) -> bool:
        """It can have memory that is a file which it may only read, and pages of its own for what the guest writes.

        So from 8.2 on (``rom=off`` of ``memory-backend-file``); older ones open the file for writing, and never do.
        """
        return self._number >= (8, 2)

    @property
    def forgets_pages(self) -> bool:
        """Emulating, it does not send all of a machine that runs, see ``forgotten_pages``."""
        return self._number < (10, 0)

    @property
    def _number(self) -> tuple[int, int]:
        found = re.search(r"version (\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass(frozen=True, slots=True)
class Handed:
    """What QEMU inherits open, by descriptor; what is not in it QEMU opens or makes by itself.

    Attributes:
        sockets: listening Unix sockets, by the name of their file in the VM's private directory.
        files: by path, and whether they may be written.
        taps: by name.
    """

    sockets: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[tuple[Path, bool], int] = field(default_factory=dict)
    taps: Mapping[str, int] = field(default_factory=dict)

    def file(self, path: Path, *, writable: bool) -> Path:
        """What QEMU is to open instead of ``path``: a set of descriptors (QEMU: ``-add-fd``), or the file itself."""
        number = self.files.get((path, writable))
        return path if number is None else Path(f"/dev/fdset/{number}")


def command_line(binary: Binary, config: VmmConfig, handed: Handed, tsc_khz: int) -> list[str]:
    """The argument list that starts ``config``.

    Args:
        binary: the executable to start.
        config: what to start; raises ``usage`` for a machine or an accelerator that QEMU does not have here.
        handed: what it inherits open.
        tsc_khz: rate of this host's time stamp counter, which an emulated ``microvm`` can't measure by itself.
    """
    machine = config.options[MACHINE]
    return [
        *machine_arguments(binary, machine, config.accelerator),
        "-name", f"{vmm_marker(config.vm_id)},process={vmm_marker(config.vm_id)}",
        *_inherited_files(handed),
        "-smp", str(config.cpus),
        "-m", f"{config.memory_mib}M",
        "-kernel", str(config.kernel),
        "-initrd", str(config.initrd),
        "-append", kernel_arguments(config, machine, tsc_khz),
        "-chardev", _socket("qmp", config.run_dir / QMP_SOCKET, handed),
        "-mon", options(chardev="qmp", mode="control"),
        "-chardev", _console(config, handed),
        "-serial", "chardev:console",
        *_devices(config, machine, handed),
    ]  # fmt: skip


def machine_arguments(binary: Binary, machine: str, accelerator: str) -> list[str]:
    """What every machine is started with, the proof of an accelerator too."""
    board = choose(MACHINES, machine, "machine")
    engine, cpu = choose(ACCELERATORS, accelerator, "accelerator")
    return [
        binary.path,
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        *(("-sandbox", SANDBOX) if binary.has_sandbox else ()),
        "-machine", board,
        "-accel", engine,
        "-cpu", cpu,
    ]  # fmt: skip


def kernel_arguments(config: VmmConfig, machine: str, tsc_khz: int) -> str:
    """What the guest wants plus what the machine needs.

    An emulated ``microvm`` has none of the timers that Linux calibrates its clocks against: unless it is told the rate
    of the time stamp counter, the kernel hangs looking for them. With a wrong rate it boots, but its clock is wrong.
    Nor has it anything to check that counter against but the timer's ticks, which an emulated CPU loses while the host
    is busy: the kernel would call the counter unstable, and count ticks from then on.
    """
    words = [_KERNEL_ARGUMENTS]
    if machine == "microvm" and config.accelerator == "tcg":
        words.append(f"tsc_early_khz={tsc_khz} no_timer_check tsc=reliable")
    words.append(config.cmdline)
    return " ".join(word for word in words if word)


def options(first: str = "", **values: object) -> str:
    """One QEMU option value, ``first,key=value,…``: an underscore in a key is a dash or, if double, a dot.

    A comma inside a value is doubled, as QEMU wants it.
    """
    pairs = (f"{key.replace('__', '.').replace('_', '-')}={escape(value)}" for key, value in values.items())
    return ",".join([first, *pairs] if first else pairs)


def escape(value: object) -> str:
    """``value`` as a part of a QEMU option."""
    return str(value).replace(",", ",,")


def _inherited_files(handed: Handed) -> Iterator[str]:
    for (path, _), number in handed.files.items():
        yield from ("-add-fd", options(fd=number, set=number, opaque=path))


def _socket(name: str, path: Path, handed: Handed) -> str:
    """A character device on which QEMU is called: on an inherited socket, or on one that it makes."""
    number = handed.sockets.get(path.name)
    where: dict[str, object] = {"path": path} if number is None else {"fd": number}
    return options("socket", id=name, **where, server="on", wait="off")


def _console(config: VmmConfig, handed: Handed) -> str:
    return options("file", id="console", path=handed.file(config.console_log, writable=True), append="on")


def _devices(config: VmmConfig, machine: str, handed: Handed) -> Iterator[str]:
    bus = "device" if machine == "microvm" else "pci"
    for index, device in enumerate(config.devices):
        if isinstance(device, Drive):
            yield from _disk(f"disk{index}", device, bus, handed)
        else:
            yield from _network_card(device, bus, config.vm_id, handed)
    yield from ("-object", options("rng-builtin", id="rng0"))
    yield from ("-device", options(f"virtio-rng-{bus}", rng="rng0"))
    yield from ("-device", f"virtio-serial-{bus}")
    yield from _serial_port(AGENT_NODE, config.run_dir / AGENT_SOCKET, AGENT_PORT, handed)
    yield from _serial_port("ports", config.run_dir / PORTS_SOCKET, PORTS_PORT, handed)


def _serial_port(node: str, socket: Path, name: str, handed: Handed) -> Iterator[str]:
    """A byte stream to the guest's agent: a port of virtio-serial whose other end is a socket.

    One client at a time is served; the guest sees whether there is one. Without one, what it writes is thrown away.
    """
    yield from ("-chardev", _socket(node, socket, handed))
    yield from ("-device", options("virtserialport", chardev=node, name=name))


def _disk(node: str, drive: Drive, bus: str, handed: Handed) -> Iterator[str]:
    """A write that the host does not take stops the machine, which tries it again when it goes on; see ``health``.

    So for every reason: a full disk, a quota, a device that fails. A guest that was told of an error would remount its
    file system read-only and lose what it had not written yet. A read that fails loses nothing, and is told.
    """
    policy = {"rerror": "report"} if drive.read_only else {"rerror": "report", "werror": "stop"}
    yield from ("-blockdev", _blockdev(node, drive, handed))
    yield from ("-device", options(f"virtio-blk-{bus}", drive=node, serial=drive.label, **policy))


def _network_card(nic: Nic, bus: str, vm_id: str, handed: Handed) -> Iterator[str]:
    yield from ("-netdev", _netdev(nic, handed))
    # No option ROM: nothing boots from the network, and loading one costs time.
    rom = {"romfile": ""} if bus == "pci" else {}
    mac = nic.mac if isinstance(nic, TapNic) else _mac(vm_id)
    yield from ("-device", options(f"virtio-net-{bus}", netdev="net0", mac=mac, **rom))


def _blockdev(node: str, drive: Drive, handed: Handed) -> str:
    """A raw file or block device. QEMU's own file locks stay on: readers share a base, a writable disk has one user.

    The guest sees a disk with a write cache, whose flush is the host's ``fdatasync``: what it has synced, it has.
    """
    driver = "host_device" if drive.path.is_relative_to("/dev") else "file"
    return options(
        "raw",
        node_name=node,
        read_only="on" if drive.read_only else "off",
        cache__no_flush="off",
        discard="unmap",
        file__driver=driver,
        file__filename=handed.file(drive.path, writable=not drive.read_only),
        file__discard="unmap",
    )


def _netdev(nic: Nic, handed: Handed) -> str:
    """A tap that is there already, or user-mode networking."""
    if isinstance(nic, TapNic):
        if (number := handed.taps.get(nic.tap)) is not None:
            return options("tap", id="net0", fd=number)
        return options("tap", id="net0", ifname=nic.tap, script="no", downscript="no")
    return options("user", id="net0", ipv6="off")


def _mac(vm_id: str) -> str:
    """A stable address under QEMU's own prefix."""
    digest = sha256(vm_id.encode()).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest[:3])


def choose(choices: Mapping[str, _T], name: str, noun: str) -> _T:
    """What ``name`` stands for among ``choices``; raises ``usage`` that lists them."""
    try:
        return choices[name]
    except KeyError:
        hint = f"choose from {', '.join(choices)}"
        raise BangerError(ErrorKind.USAGE, f'QEMU has no {noun} "{name}"', subject=name, hint=hint) from None
