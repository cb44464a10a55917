"""The ports for what runs inside a VM, and how it is reached."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from banger.core.cancel import CancelToken
from banger.core.models import Vm
from banger.core.operation import Operation
from banger.core.ports.guest_network import GuestNetwork
from banger.core.ports.machine import AgentCarrier, KernelFormat
from banger.core.ports.running_guest import RunningGuest

#: Port of banger's own ssh server in a guest, on loopback; 22 is left to the image.
SSH_PORT = 2222

_Answer = TypeVar("_Answer")


class Guests(Protocol):
    """All running guests. Actors call the blocking methods from their own threads."""

    def connect(self, vm: Vm, operation: Operation, timeout_s: float, token: CancelToken | None = None) -> None:
        """Wait until a guest that may still be booting answers, and be sure that it is the right one.

        Leaves at once when the operation is cancelled, or when ``token`` is, if there is one: in its place then.

        Raises:
            BangerError: ``timeout``; ``denied`` if it is another one; ``cancelled``.
        """
        ...

    def power_off(self, vm: Vm, timeout_s: float, token: CancelToken | None = None, *, by_reboot: bool = False) -> None:
        """Have the guest power itself off in the image's own way, or reboot; returns once it has heard.

        Raises:
            BangerError: ``unknown_outcome`` if it was lost when it had perhaps heard, ``cancelled``, and ``timeout``,
                ``unavailable`` or ``denied`` if it does not hear.
        """
        ...

    def served(self, vm_id: str) -> int:
        """How many commands, copies and connections a guest serves now, for callers of this daemon."""
        ...

    def disconnect(self, vm_id: str, reason: str = "the VM was stopped") -> None:
        """Let go of a guest that is going down. Commands in it fail with ``unknown_outcome``, and say ``reason``."""
        ...

    def ask(
        self,
        vm: Vm,
        work: Callable[[RunningGuest], Coroutine[Any, Any, _Answer]],
        timeout_s: float,
        token: CancelToken | None = None,
    ) -> _Answer:
        """Do something with a guest in the event loop, and wait for it here; not to be called there.

        Leaves at once when ``token`` is cancelled: what ``work`` waits for is cancelled then.

        Raises:
            BangerError: ``timeout``, ``cancelled``, or what ``work`` raises.
        """
        ...

    def session(self, vm: Vm) -> RunningGuest:
        """The guest of a running VM, for the event loop. Reaches for nothing before it is asked for something."""
        ...


@dataclass(frozen=True, slots=True)
class Mount:
    """The drive of that ``label`` is seen at ``path`` in the guest, from before anything of the image runs."""

    label: str
    path: str


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """What differs per VM and travels in its own archive: nothing secret is in boot arguments.

    Attributes:
        root: ``overlay`` joins the read-only drive ``root`` and the writable drive ``data``; ``direct`` mounts the
            drive ``root`` itself read-write.
        mounts: drives that are mounted besides the root; each is one that :class:`GuestBoot` knows.
        drives: the labels of all drives, in the order in which the guest sees them; empty if it sees the labels.
        carrier: how its agent is reached.
        has_power_switch: the machine ends when the guest powers off; otherwise only when it reboots.
        files: path in the guest to content, written at every start.
        command: started with every boot, with the console for its output; empty: none.
        user: who runs ``command``; empty: root.
        workdir: where it starts; empty: in ``/``.
        directories: absolute paths without line breaks that the configuration names, made at every start where the
            root file system has none.
        vm_id: marks the VM's first boot as done, in a place where no image can have put it.
    """

    hostname: str
    authorized_key: str
    host_key_seed: bytes
    init: str
    env: Sequence[str]
    network: GuestNetwork
    files: Mapping[str, bytes]
    root: str = "overlay"
    mounts: Sequence[Mount] = ()
    drives: Sequence[str] = ()
    carrier: AgentCarrier = AgentCarrier.SERIAL
    has_power_switch: bool = True
    command: Sequence[str] = ()
    user: str = ""
    workdir: str = ""
    directories: Sequence[str] = ()
    vm_id: str = ""


@dataclass(frozen=True, slots=True)
class ServerKey:
    """A host key: ``private`` in the format of the server's file, ``public`` as its maker says."""

    private: bytes
    public: str


class HostKeys(Protocol):
    """Host keys for servers in guests, made on this host."""

    def own(self, seed: bytes) -> ServerKey:
        """Of banger's own ssh server, from 32 bytes; ``public`` are 64 hexadecimal digits (RFC 8709, section 4)."""
        ...

    def openssh(self, name: str) -> ServerKey | None:
        """A new one for OpenSSH's sshd; ``public`` is the text of its file without a comment: ``ssh-ed25519 AAAA…``.

        ``name`` is that of the file, ``ssh_host_KIND_key``. None for a kind that is not made any more.
        """
        ...


class GuestBoot(Protocol):
    """Makes what the kernel boots into.

    ``mounts`` are those that a guest can be asked for.
    """

    mounts: Collection[Mount]

    def toolbox(self, kernel_dir: Path, kernel_id: str, operation: Operation) -> Path:
        """The toolbox initrd for a kernel, from the cache or made now."""
        ...

    def initrd(self, toolbox: Path, config: GuestConfig, target: Path) -> None:
        """Write ``target``: the toolbox with the per-VM archive joined to it. Mode 0600."""
        ...

    def kernel(self, kernel_dir: Path, kernel_format: KernelFormat, operation: Operation) -> Path:
        """A kernel's file in a format that a machine takes, made now if need be. Two makers at once do no harm.

        Raises:
            BangerError: ``invalid`` if there is none in its file, or it is damaged.
        """
        ...

    def kernel_fault(self, kernel_dir: Path) -> str:
        """What is wrong with a kernel's file, or empty. Reads all of it: ask when a boot failed."""
        ...

    def cmdline(self, *, verbose: bool = False) -> str:
        """The kernel arguments that the toolbox's init wants; ``verbose`` has the kernel tell what is notable."""
        ...
