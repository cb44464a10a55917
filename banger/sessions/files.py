"""Copying files into and out of running VMs."""

from __future__ import annotations

from banger.core.exec import ExitStatus
from banger.core.models import Vm
from banger.core.names import check_guest_path
from banger.core.ports import GuestFiles, GuestPath, Guests
from banger.core.states import check_running
from banger.sessions.caller import Caller, converse


class FileService:
    """Copies for callers. All raise ``usage`` for a path that is not absolute, ``conflict`` unless the VM runs."""

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def stat(self, vm: Vm, path: str) -> GuestPath:
        """What a path in the guest is."""
        return await self._files(vm, path).stat(path)

    async def put(self, vm: Vm, directory: str, caller: Caller) -> ExitStatus:
        """Unpack the tar archive that is the caller's input; code 0 once all of it is on the guest's disk."""
        return await converse(caller, await self._files(vm, directory).put(directory))

    async def get(self, vm: Vm, path: str, caller: Caller) -> ExitStatus:
        """Hand over ``path`` as a tar archive with one top-level entry."""
        return await converse(caller, await self._files(vm, path).get(path))

    def _files(self, vm: Vm, path: str) -> GuestFiles:
        check_guest_path(path)
        check_running(vm)
        return self._guests.session(vm).files
