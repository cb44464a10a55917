"""The ``Guests`` port over ssh: each request as a command line for the guest's login shell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from banger.core.cancel import CancelToken
from banger.core.exec import ExecRequest
from banger.core.models import GuestAccess, Vm
from banger.core.operation import Operation
from banger.core.ports import GuestPath
from banger.guest import files
from banger.guest.channel import GuestChannels
from banger.guest.sessions import GuestSession

#: What the login shell takes as a wish to power off in the image's own way (see ``data/enter``).
_POWER_OFF = "banger-poweroff"


class SshGuests:
    """Implements :class:`banger.core.ports.Guests`."""

    def __init__(self, channels: GuestChannels, access: Callable[[Vm], GuestAccess]) -> None:
        """``access`` tells how the guest of a running VM is reached."""
        self._channels = channels
        self._access = access

    def connect(self, vm: Vm, operation: Operation, timeout_s: float, token: CancelToken | None = None) -> None:
        """Connect, strictly checking the host key, and keep the connection."""
        self._channels.connect(self._access(vm), operation, timeout_s, token)

    def power_off(self, vm: Vm, timeout_s: float, token: CancelToken | None = None) -> None:
        """Have the guest power itself off."""
        self._channels.run(self._access(vm), _POWER_OFF, timeout_s, token)

    def connections(self, vm_id: str) -> tuple[int, int]:
        """How many connections are kept, and how many of them a command uses now."""
        return self._channels.connections(vm_id)

    def disconnect(self, vm_id: str) -> None:
        """Drop the connections."""
        self._channels.disconnect(vm_id)

    def session(self, vm: Vm) -> SshGuest:
        """The guest of a running VM."""
        return SshGuest(self._channels, self._access(vm))

    async def close(self) -> None:
        """Drop everything; the daemon is ending."""
        await self._channels.close()


@dataclass(frozen=True, slots=True)
class SshGuest:
    """Implements :class:`banger.core.ports.RunningGuest`."""

    channels: GuestChannels
    access: GuestAccess

    @property
    def files(self) -> SshFiles:
        """Its files."""
        return SshFiles(self.channels, self.access)

    async def exec(self, request: ExecRequest) -> GuestSession:
        """Start a command of the user's."""
        return await self.channels.open_session(self.access, request)


@dataclass(frozen=True, slots=True)
class SshFiles:
    """Implements :class:`banger.core.ports.GuestFiles` with tools of the toolbox."""

    channels: GuestChannels
    access: GuestAccess

    async def stat(self, path: str) -> GuestPath:
        """What ``path`` is."""
        session = await self.channels.open_tool(self.access, files.look(path))
        answer = await session.answer()
        return files.seen(answer.stdout)

    async def put(self, directory: str) -> GuestSession:
        """Unpack a tar archive there."""
        return await self.channels.open_tool(self.access, files.receive(directory))

    async def get(self, path: str) -> GuestSession:
        """Pack it as a tar archive."""
        return await self.channels.open_tool(self.access, files.send(path))
