"""The configuration and the state of a machine: the types shared by VMM drivers and their callers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from banger.core.models import ProcessIdentity
from banger.core.ports.machine_state import SavedMachine

#: In a VM's private directory, the socket behind which its guest's agent answers. No longer than that of the monitor.
AGENT_SOCKET = "ga.sock"
#: By this name the agent finds its end of that byte stream, where that is a serial port.
AGENT_PORT = "org.banger.agent"
#: Where the agent listens if it is reached by vsock (docs/agent.md).
AGENT_VSOCK_PORT = 1024
#: The same for a second stream, on which the agent does nothing but dial: that of the forwarder of published ports.
PORTS_SOCKET = "gp.sock"
PORTS_PORT = "org.banger.agent.ports"
PORTS_VSOCK_PORT = 1025


class AgentCarrier(StrEnum):
    """What carries the byte streams between a guest's agent and the sockets of its machine."""

    SERIAL = "serial"  # ports of virtio-serial; each has a socket, its other end
    VSOCK = "vsock"  # connections to the agent's ports; each is asked for on one socket. A save ends all of them


class KernelFormat(StrEnum):
    """The format in which a machine takes its kernel."""

    AS_IT_IS = "as it is"
    ELF = "elf"  # uncompressed


@dataclass(frozen=True, slots=True)
class Drive:
    """A block device of a VM. ``label`` is its role in the guest: at most 20 letters and digits."""

    path: Path
    label: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class UserNic:
    """A network card on the VMM's own user-mode stack; needs no privilege."""


@dataclass(frozen=True, slots=True)
class TapNic:
    """A network card on a tap that exists already.

    Attributes:
        mtu: 0 for the guest's default.
        entering: the command that starts a program where the tap is, put before the VMM's own; empty: here.
    """

    tap: str
    mac: str
    mtu: int = 0
    entering: tuple[str, ...] = ()


Nic = UserNic | TapNic
#: What a machine can be given; a driver says which of these it has. A new kind is a class here, what asks for it (a
#: capability's ``devices``) and the drivers that make it.
Device = Drive | UserNic | TapNic
DeviceKind = type[Drive] | type[UserNic] | type[TapNic]

#: What kinds of devices are called in errors.
DEVICE_WORDS: dict[DeviceKind, str] = {
    Drive: "a disk",
    UserNic: "a network card on its own user-mode stack",
    TapNic: "a network card on a tap",
}


def entering(devices: Iterable[Device]) -> tuple[str, ...]:
    """The command that has to be put before that of a VMM with these devices."""
    return next((one.entering for one in devices if isinstance(one, TapNic)), ())


@dataclass(frozen=True, slots=True)
class VmmConfig:
    """Everything a VMM driver needs to start one machine.

    Attributes:
        run_dir: private directory for sockets; paths in it stay under 108 bytes.
        cmdline: kernel arguments that the guest needs, without what the driver itself adds.
        devices: drives in the order in which the guest sees them, and its network card.
        kernel: in the driver's format.
        options: what the driver made of the VM's spec, for itself.
        accelerator: as the driver's engines chose it.
        version: the release that the VM's row names, and no other; empty: the one that the driver takes now.
        uid: the user, and group, that its VMM is to be; 0 if it is not confined to one of its own.
        saved: what the machine begins with, instead of booting: one with the same CPUs, memory and kernel, and with
            devices that are the same in kind, size and order. Neither ``initrd`` nor ``cmdline`` is looked at then.
    """

    vm_id: str
    name: str
    run_dir: Path
    kernel: Path
    initrd: Path
    cmdline: str
    cpus: int
    memory_mib: int
    devices: Sequence[Device]
    options: Mapping[str, str]
    accelerator: str
    console_log: Path
    vmm_log: Path
    version: str = ""
    uid: int = 0
    saved: SavedMachine | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that was started, as its driver finds it again; a daemon that was restarted meanwhile does, too.

    ``log_offset`` is where the VMM's log began to be about this process, in bytes, ``console_offset`` where the console
    did; a machine that has come up has printed since.
    """

    vm_id: str
    identity: ProcessIdentity
    run_dir: Path
    console_log: Path
    vmm_log: Path
    log_offset: int = 0
    console_offset: int = 0


class Health(StrEnum):
    """What a machine does whose process lives."""

    RUNS = "runs"
    PAUSED = "paused"  # as it was told
    NO_ROOM = "no room"  # it stands still since a write found no room on the host; what it wants to write is kept
    DISK_FAILED = "disk failed"  # the same, but the host gave another reason not to write
    BROKEN = "broken"  # it cannot go on at all
    HALTED = "halted"  # its guest has powered off, which this machine has no switch for


@dataclass(frozen=True, slots=True)
class Condition:
    """How a machine is; ``words`` say why it does not run, in one line, and are empty if it does."""

    health: Health = Health.RUNS
    words: str = ""

    @property
    def is_stalled(self) -> bool:
        """It waits until the host takes what it writes: it goes on, and loses nothing, once that is so."""
        return self.health in (Health.NO_ROOM, Health.DISK_FAILED)
