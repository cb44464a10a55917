"""The command lines of a QEMU that takes over a machine's state: of the one that saves it, and of those that load it.

Both are made of the line of a machine that boots, since state is loaded only into what is the same. Measured with QEMU
7.2: what has to agree are the machine, CPU and memory; the devices, in their order, with the features that they offer
to the guest (those of a network card depend on what is behind it: a tap has a header for offloads, the user-mode
network has none, but state of its own); the names of memory blocks; and the kernel as far as it decides which ROM the
firmware runs. Nothing has to agree of what the guest has got already: initrd and kernel arguments; nor of the host's
ends: files behind disks, sockets, logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from banger.vmm.qemu.arguments import options as joined
from banger.vmm.qemu.words import Option, changed, first, options_of, with_options

#: A machine's memory has these names if it was given none. State knows it by its name, so that a machine whose memory
#: is a file, and one whose memory is not, load each other's.
_MEMORY_NAMES = {"microvm": "microvm.ram", "q35": "pc.ram"}
_READ_BY_THE_GUEST = frozenset({"-initrd", "-append"})
#: Said by those that wait for state; and what is said anew of memory.
_OF_LOADING = frozenset({"-S", "-incoming"})
_SET = "/dev/fdset/"


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """The file of a machine's memory, and whether it is opened for reading only."""

    path: Path
    read_only: bool = False


def loading_line(argv: Sequence[str], memory: MemoryFile) -> list[str]:
    """The line of a machine that waits for its state; of its memory file, it never writes anything."""
    fields = {"share": "off", **({"readonly": "on", "rom": "off"} if memory.read_only else {})}
    return with_options(argv[0], _with_memory(options_of(argv), memory.path, fields))


@dataclass(frozen=True, slots=True)
class Condenser:
    """What the QEMU that saves a machine has of its own.

    Attributes:
        marker: its name.
        memory: the file that the machine's memory goes to.
        monitor: the descriptor of a connected socket.
        sizes: of the machine's disks, in bytes, by the name of their node.
        tap: what is said of the tap of its network card, ``fd=…`` or ``ifname=…``.
    """

    marker: str
    memory: Path
    monitor: int
    sizes: Mapping[str, int]
    tap: Mapping[str, object]


def condenser_line(argv: Sequence[str], own: Condenser) -> list[str]:
    """The line of a machine that is like the one of ``argv`` and has nothing of the host's: no disk, log or network.

    It never runs. To the guest, the host's ends of its serial ports are open on it: so every machine that loads its
    state, where they are closed, tells the guest that they were, and no session of the saved one's goes on there.
    """

    def change(option: Option) -> Option | None:
        if option.name == "-name":
            return Option("-name", joined(own.marker, process=own.marker))
        if option.name == "-add-fd":
            return None
        if option.name == "-chardev":
            return _end(option, own.monitor)
        if option.name == "-blockdev":
            node = option.get("node-name")
            words = {"node_name": node, "read_only": option.get("read-only"), "size": own.sizes[node]}
            return Option("-blockdev", joined("null-co", **words, read_zeroes="on"))
        if option.name == "-netdev" and option.kind == "tap":
            return Option("-netdev", joined("tap", id=option.get("id"), **own.tap))
        return option

    options = _with_memory(options_of(argv), own.memory, {"share": "on"})
    return with_options(argv[0], changed(options, change))


def form_of(argv: Sequence[str]) -> str:
    """What has to agree for state to be loaded, in words; two machines with the same form load each other's."""
    options = options_of(argv)
    disks = {one.get("node-name"): one.get("read-only") for one in options if one.name == "-blockdev"}
    said = []
    for option in options:
        if option.name in ("-machine", "-cpu", "-smp", "-m"):
            said.append(f"{option.name} {option.without('memory-backend').value}")
        elif option.name == "-netdev":
            said.append(f"-netdev {option.kind}")
        elif option.name == "-device":
            node = option.get("drive")
            said.append(f"-device {option.without('mac').value}" + (f" read-only={disks[node]}" if node else ""))
    return " ".join(said)


def written_disks(argv: Sequence[str]) -> list[Path]:
    """The files that a machine's disks are written to."""
    options = options_of(argv)
    handed = {f"{_SET}{one.get('set')}": one.get("opaque") for one in options if one.name == "-add-fd"}
    files = [one.get("file.filename") for one in options if one.name == "-blockdev" and one.get("read-only") == "off"]
    return [Path(handed.get(file, file)) for file in files]


def obstacle_of(argv: Sequence[str]) -> str:
    """Why state of a machine cannot be saved: the host's kernel, or another process, has a part of a device's."""
    for option in options_of(argv):
        held = option.kind.startswith(("vhost-", "vfio-")) or option.get("vhost") == "on"
        if option.name in ("-device", "-netdev") and held:
            return f'a part of its device "{option.value}" is outside of it'
    return ""


def memory_mib(argv: Sequence[str]) -> int:
    """The guest's memory."""
    return int(first(options_of(argv), "-m").kind.removesuffix("M"))


def _with_memory(options: Sequence[Option], path: Path, fields: Mapping[str, str]) -> list[Option]:
    name = _MEMORY_NAMES[first(options, "-machine").kind]

    def change(option: Option) -> Option | None:
        if option.name in _READ_BY_THE_GUEST or option.name in _OF_LOADING:
            return None
        if option.name == "-object" and option.kind.startswith("memory-backend-"):
            return None
        return option.with_field("memory-backend", name) if option.name == "-machine" else option

    size = first(options, "-m").kind
    words = {"id": name, "size": size, "mem_path": path, "x_use_canonical_path_for_ramblock_id": "off", **fields}
    backend = Option("-object", joined("memory-backend-file", **words))
    return [*changed(options, change), backend, Option("-S"), Option("-incoming", "defer")]


def _end(option: Option, monitor: int) -> Option:
    """What a character device has in the place of the host's end."""
    node = option.get("id")
    if node == "qmp":
        return Option("-chardev", joined("socket", id=node, fd=monitor))
    if option.kind == "socket":
        return Option("-chardev", joined("file", id=node, path="/dev/null"))
    return Option("-chardev", joined("null", id=node))
