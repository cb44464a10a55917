"""Files of running VMs: copying trees, and single files for front ends that have such requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from banger.core.exec import ExitStatus
from banger.core.models import Vm
from banger.core.names import check_guest_path
from banger.core.ports import GuestEntry, GuestFiles, GuestPath, Guests, WriteOptions
from banger.sessions.caller import Caller, converse
from banger.sessions.waking import Waking


class FileService:
    """For callers. All raise ``usage`` for a path that is not absolute, ``conflict`` unless the VM runs.

    A suspended one is woken first.
    Single files are those of ``user``, as :class:`banger.core.ports.GuestFiles` says; copies are root's.
    """

    def __init__(self, guests: Guests, waking: Waking) -> None:
        self._guests = guests
        self._waking = waking

    async def stat(self, vm: Vm, path: str) -> GuestPath:
        """What a path in the guest is."""
        return await (await self._files(vm, path)).stat(path)

    async def put(self, vm: Vm, directory: str, caller: Caller) -> ExitStatus:
        """Unpack the tar archive that is the caller's input; code 0 once all of it is on the guest's disk."""
        return await converse(caller, await (await self._files(vm, directory)).put(directory))

    async def get(self, vm: Vm, path: str, caller: Caller) -> ExitStatus:
        """Hand over ``path`` as a tar archive with one top-level entry."""
        return await converse(caller, await (await self._files(vm, path)).get(path))

    async def entry(self, vm: Vm, path: str, user: str = "") -> GuestEntry:
        """What is there, a link itself. Raises ``not_found``."""
        return await (await self._files(vm, path)).entry(path, user)

    async def list(self, vm: Vm, path: str, user: str = "") -> AsyncGenerator[GuestEntry]:
        """The entries of a directory, in no order."""
        async with aclosing((await self._files(vm, path)).list(path, user)) as entries:
            async for entry in entries:
                yield entry

    async def mkdir(self, vm: Vm, path: str, mode: int = 0o755, *, parents: bool = False, user: str = "") -> None:
        """Make a directory."""
        await (await self._files(vm, path)).mkdir(path, mode, parents=parents, user=user)

    async def remove(self, vm: Vm, path: str, *, tree: bool = False, user: str = "") -> None:
        """Remove a file, an empty directory, or a tree."""
        await (await self._files(vm, path)).remove(path, tree=tree, user=user)

    async def rename(self, vm: Vm, source: str, target: str, user: str = "") -> None:
        """Give a file another name."""
        await (await self._files(vm, source, target)).rename(source, target, user)

    async def read(
        self, vm: Vm, path: str, offset: int = 0, length: int | None = None, user: str = ""
    ) -> AsyncGenerator[bytes]:
        """The bytes of a file."""
        async with aclosing((await self._files(vm, path)).read(path, offset, length, user)) as pieces:
            async for piece in pieces:
                yield piece

    async def write(
        self, vm: Vm, path: str, data: AsyncIterable[bytes], options: WriteOptions | None = None, user: str = ""
    ) -> int:
        """Write into a file as ``data`` comes; how many bytes that were."""
        return await (await self._files(vm, path)).write(path, data, options, user)

    async def _files(self, vm: Vm, *paths: str) -> GuestFiles:
        for path in paths:
            check_guest_path(path)
        vm = await self._waking.awake(vm)
        return self._guests.session(vm).files
