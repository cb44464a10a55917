"""The port for a running guest: commands and files, independent of the transport.

All of it lives in the event loop. What a guest sends is held within bounds by whoever implements this; how long it may
take is up to the caller, who ends a wait by cancelling it, but for the short answers of banger's own tools.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from banger.core.exec import ExecRequest, ExitStatus, Stream
from banger.core.guest_facts import GuestFacts
from banger.core.guest_identity import SeenIdentity
from banger.core.ports.guest_network import GuestNetwork


class GuestProcess(Protocol):
    """A command that runs in a guest.

    Read :meth:`output` to its end, then ask :meth:`wait`. A reader that does not keep up stops the command. Always
    :meth:`close` in the end: it ends a command that still runs.
    """

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Both streams in the order they came, until both have ended. For one reader.

        Raises:
            BangerError: ``unknown_outcome`` if the guest was lost before the end.
        """
        ...

    async def write_stdin(self, data: bytes) -> bool:
        """Send input once the guest has taken most of what came before. False once nobody reads input any more."""
        ...

    def write_eof(self) -> None:
        """End the input. Idempotent."""
        ...

    def send_signal(self, name: str) -> None:
        """Signal the command by the name without ``SIG``; nothing happens if it has ended. Raises ``usage``."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command's terminal its new size."""
        ...

    async def wait(self) -> ExitStatus:
        """How the command ended, as soon as the guest says so (unread output may be left).

        Raises:
            BangerError: ``unknown_outcome`` if the guest was lost, or does not tell.
        """
        ...

    async def close(self) -> None:
        """Hang up: a command that still runs gets ``HUP``, and soon after all that it has started ``KILL``.

        Of a command that has ended, nothing is touched: what it left in the background was meant to stay. Idempotent,
        never raises. Cancelled, it kills at once.
        """
        ...


@dataclass(frozen=True, slots=True)
class GuestPath:
    """What a path in a guest is.

    Attributes:
        kind: ``directory``, ``file``, ``other`` or ``missing``; of a symbolic link, what it leads to.
        is_link: the path itself is a symbolic link.
        real_path: where the link leads, all links on the way resolved; if nothing is there, where it would be. Empty
            if it is no link.
    """

    kind: str
    is_link: bool = False
    real_path: str = ""


class EntryKind(StrEnum):
    """What an entry of a directory is."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    CHARACTER_DEVICE = "character_device"
    BLOCK_DEVICE = "block_device"
    PIPE = "pipe"
    SOCKET = "socket"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GuestEntry:
    """A file as a guest's kernel describes it, without following a link.

    Attributes:
        name: in its directory; of a path that was asked for, that path. Not UTF-8: with surrogates.
        mode: the permission bits.
        target: the text of a symbolic link.
    """

    name: str
    kind: EntryKind
    mode: int = 0
    uid: int = 0
    gid: int = 0
    links: int = 0
    size_bytes: int = 0
    inode: int = 0
    modified_ns: int = 0
    target: str = ""


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a file is written to.

    Attributes:
        offset: where, if not ``append``.
        mode: permission bits of a file that is made.
        create: one that is not there is made; with ``exclusive``, it must not be there.
        truncate: what it has is thrown away first.
        append: at its end, wherever that is by then.
        durable: it is on the guest's disk in the end.
    """

    offset: int = 0
    mode: int = 0o644
    create: bool = True
    exclusive: bool = False
    truncate: bool = False
    append: bool = False
    durable: bool = False


class GuestFiles(Protocol):
    """The files of one guest. Paths are absolute.

    ``user`` is whose rights count: a name or number of the image's, with ``:GROUP`` or without; empty for root. What
    the guest refuses is raised as its kernel means it: ``not_found``, ``already_exists``, ``denied``, ``conflict``,
    ``exhausted``, ``invalid``, or else ``unavailable``; as every request, also ``timeout`` and ``unknown_outcome``.
    """

    async def entry(self, path: str, user: str = "") -> GuestEntry:
        """What is there, a link itself."""
        ...

    def list(self, path: str, user: str = "") -> AsyncGenerator[GuestEntry]:
        """The entries of a directory as they come, in no order. What stays unread waits in the guest; close it."""
        ...

    async def mkdir(self, path: str, mode: int = 0o755, *, parents: bool = False, user: str = "") -> None:
        """Make a directory; with ``parents``, what leads to it too, and one that is there is fine."""
        ...

    async def remove(self, path: str, *, tree: bool = False, user: str = "") -> None:
        """Remove a file or an empty directory, or all of a ``tree`` but what is mounted in it."""
        ...

    async def rename(self, source: str, target: str, user: str = "") -> None:
        """Give a file another name in the same file system; a file of that name is replaced."""
        ...

    def read(self, path: str, offset: int = 0, length: int | None = None, user: str = "") -> AsyncGenerator[bytes]:
        """The bytes of a file from ``offset`` on, to its end or at most ``length``. Close it."""
        ...

    async def write(
        self, path: str, data: AsyncIterable[bytes], options: WriteOptions | None = None, user: str = ""
    ) -> int:
        """Write into a file as ``data`` comes; how many bytes that were. If it fails, some of them may be there."""
        ...

    async def stat(self, path: str) -> GuestPath:
        """What ``path`` is. Raises ``timeout``, ``invalid`` or ``unavailable`` if the guest does not tell."""
        ...

    async def put(self, directory: str) -> GuestProcess:
        """Unpack the tar archive (ustar or GNU) that is its input; ends well once all of it is on the guest's disk."""
        ...

    async def get(self, path: str) -> GuestProcess:
        """Pack ``path``: its output is a tar archive, and what was left out a line each on its standard error.

        The archive's one top-level entry is the path's last part, ``.`` if that is all there is or it ends in ``/.``.
        """
        ...


@dataclass(frozen=True, slots=True)
class GuestIdentity:
    """What tells a machine from others, after it was copied. ``None`` is left as it is.

    Attributes:
        hostname: the kernel's, and ``/etc/hostname``.
        machine_id: 32 lower-case hexadecimal digits; empty: the image's init makes one at its next start.
        boot_id: a UUID.
        host_key: of banger's own ssh server, in its format; connections from then on meet it.
        vm_id: of the VM whose disk its disk is now.
    """

    hostname: str | None = None
    machine_id: str | None = None
    boot_id: str | None = None
    host_key: bytes | None = None
    vm_id: str | None = None


class GuestMachine(Protocol):
    """One guest as a machine: its figures, and what has to be set right after it was paused, copied or restored.

    All raise as :class:`GuestFiles` says.
    """

    async def facts(self) -> GuestFacts:
        """Its figures now."""
        ...

    async def clock(self) -> int:
        """Its wall clock, nanoseconds since 1970."""
        ...

    async def set_clock(self, unix_ns: int) -> int:
        """Set its wall clock, at once and not smoothly; what it was just before."""
        ...

    async def add_entropy(self, seed: bytes) -> None:
        """Seed its random numbers anew, by 32 to 512 bytes that nobody else knows."""
        ...

    async def identify(self, identity: GuestIdentity) -> None:
        """Give it an identity, part by part: if it fails, some of it may be set."""
        ...

    async def identity(self) -> SeenIdentity:
        """Who it is now. Its kernel makes the random numbers in it for this answer."""
        ...

    async def forget_seeds(self) -> None:
        """Remove the files from which its kernel, or a DHCP client, would repeat itself after the next boot."""
        ...

    async def set_network(self, network: GuestNetwork, mac: str = "") -> None:
        """Give its one card a MAC address, unless that is empty, and these addresses and routes instead of its own.

        Its resolver asks ``network.nameserver`` from then on if it has asked one that banger had set. The card goes
        down and up. Raises ``unavailable`` if it has none.
        """
        ...

    async def freeze(self, mount_points: Sequence[str], within_s: float) -> int:
        """Bring file systems to a stand, all or none, with what they have on their disks; how many.

        They go on by :meth:`thaw`, after ``within_s`` seconds, 60 at most, when this is cancelled, or when the
        connection to the guest is lost. The root ``/`` is the whole of it, whatever it is made of. Raises ``conflict``
        if something is frozen already.
        """
        ...

    async def thaw(self, mount_points: Sequence[str]) -> int:
        """Let all go on that :meth:`freeze` brought to a stand, and these, whoever did; no error if they do already.

        Returns how many stood still until now: with fewer than were frozen, something may have been written meanwhile.
        """
        ...


class RunningGuest(Protocol):
    """One running guest."""

    async def ssh(self) -> GuestProcess:
        """Connect to banger's own ssh server in it, which is started if it does not run.

        The connection's bytes are its input and its standard output; it is over once the server has ended its side.
        Raises as :meth:`exec` does.
        """
        ...

    @property
    def files(self) -> GuestFiles:
        """Its files."""
        ...

    @property
    def machine(self) -> GuestMachine:
        """Its figures, clock and identity."""
        ...

    async def exec(self, request: ExecRequest) -> GuestProcess:
        """Start a command of the user's.

        Raises:
            BangerError: ``usage`` for a command that cannot be sent; ``unavailable`` if the guest cannot be reached
                or refuses; ``unknown_outcome`` if the guest was lost when the command had perhaps begun.
        """
        ...
