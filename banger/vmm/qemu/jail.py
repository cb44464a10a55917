"""What a QEMU in a jail has of the host.

Disks, logs, sockets and taps are opened for it and inherited, so that it needs no right to any of them, and whose they
are does not change. Three things it opens by itself, by path: its firmware, the kernel and the initrd.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from banger.core.ports import AGENT_SOCKET, PORTS_SOCKET, Drive, TapNic, UserNic, VmmConfig
from banger.launch import Confinement, ForHelper, Opened
from banger.vmm import handing
from banger.vmm.qemu.arguments import QMP_SOCKET, Binary, Handed
from banger.vmm.qemu.state_lines import MemoryFile
from banger.vmm.saved_files import SavedFiles

#: The first descriptor that is handed over; those below are QEMU's own.
_FIRST = 10
#: Where the dynamic linker looks (ld.so(8)); those that are symbolic links are seen as such.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
#: Package stores in which every program has its libraries in directories of their own.
_STORES = ("/nix/store", "/gnu/store")
#: Where the user-mode network learns of the host's name servers.
_RESOLVER = Path("/etc/resolv.conf")
_DEVICES = (Path("/dev/null"), Path("/dev/urandom"))
_KVM = Path("/dev/kvm")


@dataclass(frozen=True, slots=True)
class OfCondenser:
    """Who it is, and two descriptors: of its monitor, which it inherits, and of a tap that is made for it."""

    uid: int
    monitor: int
    tap: int


def handed(config: VmmConfig) -> Handed:
    """What is handed over, each with its number. Pure."""
    numbers = count(_FIRST)
    drives = [(device.path, not device.read_only) for device in config.devices if isinstance(device, Drive)]
    return Handed(
        sockets={name: next(numbers) for name in (QMP_SOCKET, AGENT_SOCKET, PORTS_SOCKET)},
        files={one: next(numbers) for one in dict.fromkeys([(config.console_log, True), *drives])},
        taps={device.tap: next(numbers) for device in config.devices if isinstance(device, TapNic)},
    )


def confinement(config: VmmConfig, binary: Binary, given: Handed, memory: MemoryFile | None = None) -> Confinement:
    """What QEMU sees and gets; ``memory`` is its guest's. Where a tap is all of its network, it sees no other."""
    files = [Opened(number, _mode(config, *one), one[0]) for one, number in given.files.items()]
    is_on_host_network = any(isinstance(device, UserNic) for device in config.devices)
    return Confinement(
        files=files,
        sockets=[(number, config.run_dir / name) for name, number in given.sockets.items()],
        taps=[(number, name) for name, number in given.taps.items()],
        visible=list(dict.fromkeys(_visible(config, binary, memory, with_resolver=is_on_host_network))),
        devices=_devices(config.accelerator),
        uid=config.uid,
        has_network=is_on_host_network,
        written=[memory.path] if memory and not memory.read_only else [],
    )


def of_condenser(binary: Binary, kernel: Path, accelerator: str, files: SavedFiles, own: OfCondenser) -> Confinement:
    """What the QEMU that saves a machine sees and gets: the file for memory, and a tap that leads nowhere."""
    return Confinement(
        visible=[*_programs(binary), kernel],
        written=[files.memory],
        devices=_devices(accelerator),
        uid=own.uid,
        has_network=False,
        helper=ForHelper([own.monitor], own.tap),
    )


def give(config: VmmConfig, memory: MemoryFile | None = None) -> None:
    """Let the VMM's user read what QEMU opens by itself.

    The initrd is the VM's own, and holds its host key: it is given away, and so is memory that is no other's. The
    kernel is shared, and no secret; saved memory is one, but only those are shown it that begin with it.

    Raises:
        BangerError: ``unavailable`` on a file system that does not know users.
    """
    try:
        handing.show(config.kernel)
        if memory is None:
            handing.give(config.initrd, config.uid)
        elif memory.read_only:
            handing.show(memory.path)
        else:
            handing.give(memory.path, config.uid)
    except OSError as error:
        raise handing.no_jail(config.name, f"{error.filename}: {error.strerror}") from error


def _mode(config: VmmConfig, path: Path, writable: bool) -> Literal["read", "write", "append"]:
    if path == config.console_log:
        return "append"
    return "write" if writable else "read"


def _visible(config: VmmConfig, binary: Binary, memory: MemoryFile | None, *, with_resolver: bool) -> Iterator[Path]:
    yield from _programs(binary)
    yield config.kernel
    if memory is None:
        yield config.initrd
    elif memory.read_only:
        yield memory.path
    if with_resolver and _RESOLVER.exists():
        yield from _resolver_files()


def _devices(accelerator: str) -> tuple[Path, ...]:
    return (*_DEVICES, *((_KVM,) if accelerator == "kvm" else ()))


def _programs(binary: Binary) -> Iterator[Path]:
    """Programs of the host are not among it: whoever takes over QEMU finds no shell."""
    program = Path(binary.path).resolve()
    own = [program, *(Path(one).resolve() for one in binary.data_dirs)]
    stores = [Path(store) for store in _STORES if program.is_relative_to(store)]
    libraries = [Path(one) for one in os.environ.get("LD_LIBRARY_PATH", "").split(":") if one.startswith("/")]
    for path in (*map(Path, _LIBRARIES), *stores, *libraries, *own):
        if path.exists():
            yield path


def _resolver_files() -> Iterator[Path]:
    """The file, and if it is a link, the directory that it leads to: services replace it there."""
    yield _RESOLVER
    if _RESOLVER.is_symlink():
        yield _RESOLVER.resolve().parent
