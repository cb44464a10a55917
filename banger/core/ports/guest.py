"""What runs inside a VM and how it is reached, as a VM's owner sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.cancel import CancelToken
from banger.core.models import GuestAccess
from banger.core.operation import Operation


class Guests(Protocol):
    """The channel into running guests, as the owners see it (the API uses more of it)."""

    def connect(self, access: GuestAccess, operation: Operation, timeout_s: float) -> None:
        """Connect, strictly checking the host key, and keep the connection. Raises ``timeout``."""
        ...

    def run(
        self, access: GuestAccess, command: str, timeout_s: float, token: CancelToken | None = None
    ) -> tuple[int, bytes]:
        """Run one of banger's own commands in the guest; exit code and what it printed."""
        ...

    def connections(self, vm_id: str) -> tuple[int, int]:
        """How many connections to a guest are kept, and how many of them a command uses now."""
        ...

    def disconnect(self, vm_id: str) -> None:
        """Drop the connection, if there is one."""
        ...


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """The addresses of a guest's one network card, set by banger's init before anything of the image runs.

    Attributes:
        address: IPv4 address and prefix length: ``10.0.2.15/24``. A guest that is cut off has one too.
        gateway: its default route; empty for none.
        nameserver: what its resolver asks; empty leaves the image's own setting.
        address6, gateway6: the same for IPv6; empty for none.
        mtu: 0 for the kernel's default.
    """

    address: str
    gateway: str = ""
    nameserver: str = ""
    address6: str = ""
    gateway6: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """What differs per VM and travels in its own archive: nothing secret is in boot arguments.

    Attributes:
        root: ``overlay`` joins the read-only drive ``root`` and the writable drive ``data``; ``direct`` mounts the
            drive ``root`` itself read-write.
        home: the drive ``home`` is there, to be mounted on ``/root``.
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
    ssh_port: int
    env: Sequence[str]
    network: GuestNetwork
    files: Mapping[str, bytes]
    root: str = "overlay"
    home: bool = False
    command: Sequence[str] = ()
    user: str = ""
    workdir: str = ""
    directories: Sequence[str] = ()
    vm_id: str = ""


class GuestBoot(Protocol):
    """Makes what the kernel boots into."""

    ssh_port: int

    def toolbox(self, kernel_dir: Path, kernel_id: str, operation: Operation) -> Path:
        """The toolbox initrd for a kernel, from the cache or made now."""
        ...

    def initrd(self, toolbox: Path, config: GuestConfig, target: Path) -> None:
        """Write ``target``: the toolbox with the per-VM archive joined to it. Mode 0600."""
        ...

    def kernel_fault(self, kernel_dir: Path) -> str:
        """What is wrong with a kernel's file, or empty. Reads all of it: ask when a boot failed."""
        ...

    def cmdline(self, *, verbose: bool = False) -> str:
        """The kernel arguments that the toolbox's init wants; ``verbose`` has the kernel tell what is notable."""
        ...

    def poweroff_command(self) -> str:
        """What to run through :meth:`Guests.run` to have the guest power itself off in an orderly way."""
        ...
