"""Saving a machine, which stands still meanwhile: Firecracker writes all of its memory to a file, and syncs that.

It writes with the rights of its own user, to two files in a directory of the VM's that it cannot change. What is kept
is a copy of these, made once the machine goes on: nothing but zeros takes no room in it, and no VMM ever had it open.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger.core.cancel import CancelToken, Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import DEVICES_FILE, MEMORY_FILE, Machine, SavedMachine
from banger.core.units import MIB
from banger.posix.copying import copy_without_zeros
from banger.vmm import handing
from banger.vmm import identity as processes
from banger.vmm.firecracker import jail
from banger.vmm.firecracker.client import Api, ApiError
from banger.vmm.firecracker.configuration import API_SOCKET, form_of
from banger.vmm.firecracker.releases import parse_version
from banger.vmm.firecracker.saving_place import forget, saving_place
from banger.vmm.saved_files import SavedFiles, no_room, saved_files
from banger.vmm.verdicts import cpu_model

#: The driver's name, and the key in a saved machine's details.
NAME, FORM = "firecracker", "form"
_KVM = "kvm"
_LOOK_TIMEOUT_S, _COMMAND_TIMEOUT_S, _POLL_S = 2.0, 10.0, 0.05
#: What a GiB may take until a slow disk has it, on a busy host.
_WRITE_TIMEOUT_S, _WRITE_S_PER_GIB = 60.0, 60.0
#: The first one that gives a machine which goes on another tap.
_CHANGES_TAPS = (1, 12, 0)
#: All of a machine but its memory; what is longer was not written by Firecracker.
_MOST_DEVICES_BYTES = 16 << 20
_NO_ROOM = ("os error 28", "os error 122")  # ENOSPC, EDQUOT
_ANEW = "it was started by an earlier banger: start it anew"


def time_to_write_s(memory_mib: int) -> float:
    """How long a machine may take to be written, in seconds."""
    return _WRITE_TIMEOUT_S + _WRITE_S_PER_GIB * memory_mib / 1024


def obstacle_of(machine: Machine) -> str:
    """Why the machine cannot be saved, in one line; empty if nothing is known against it."""
    api = Api(machine.run_dir / API_SOCKET, _LOOK_TIMEOUT_S)
    try:
        return _obstacle(machine, api.get("/vm/config"), _version(api))
    except ApiError:
        return ""


def _obstacle(machine: Machine, whole: Mapping[str, Any], version: str) -> str:
    paths = [str(one["path_on_host"]) for one in whole.get("drives", ())]
    is_free = not jail.shared_dir(machine.run_dir).is_dir()
    if not saving_place(machine.vmm_log).is_dir() or (is_free and any(path.startswith("/") for path in paths)):
        return _ANEW
    numbers = parse_version(version)
    if whole.get("network-interfaces") and (numbers is None or numbers < _CHANGES_TAPS):
        return f"Firecracker {version} gives a saved machine no other tap; versions from 1.12 on do"
    return ""


def _version(api: Api) -> str:
    return str(api.get("/version").get("firecracker_version", ""))


@dataclass(frozen=True, slots=True)
class Saving:
    """One save of one machine."""

    machine: Machine
    token: CancelToken

    def save(self, into: Path, standing: Callable[[], None]) -> SavedMachine:
        """As :meth:`banger.core.ports.VmmDriver.save`. Nothing is started for it, and a write is not cut short."""
        api = self._api(_COMMAND_TIMEOUT_S)
        try:
            if processes.is_stopped(self.machine.identity):  # as some versions are paused, which listen to nobody then
                processes.kill(self.machine.identity, signal.SIGCONT)
                api.patch("/vm", {"state": "Paused"})
            state = api.get("/").get("state")
            if state not in ("Running", "Paused"):
                raise self._not_running(f"it is in the state {state}")
            version, whole = _version(api), api.get("/vm/config")
            if obstacle := _obstacle(self.machine, whole, version):
                raise self._failed(obstacle)
            memory_mib = int(whole["machine-config"]["mem_size_mib"])
            with saved_files(into, memory_mib) as files:
                self._written(files, memory_mib, standing, runs=state == "Running")
        except ApiError as error:
            if any(word in str(error) for word in _NO_ROOM):
                raise no_room(into / MEMORY_FILE) from error
            raise self._failed(str(error)) from error
        finally:
            forget(self.machine.vmm_log)
        return SavedMachine(
            directory=into,
            vmm=NAME,
            vmm_version=version,
            cpu=cpu_model(),
            accelerator=_KVM,
            memory_mib=memory_mib,
            details={FORM: form_of(whole)},
        )

    def _written(self, files: SavedFiles, memory_mib: int, standing: Callable[[], None], *, runs: bool) -> None:
        directory = saving_place(self.machine.vmm_log)
        raw = SavedFiles(directory)
        self._make(raw)
        place = jail.SAVING if jail.shared_dir(self.machine.run_dir).is_dir() else directory
        wish = {
            "snapshot_type": "Full",
            "snapshot_path": str(place / DEVICES_FILE),
            "mem_file_path": str(place / MEMORY_FILE),
        }
        self.token.raise_if_cancelled()
        try:
            if runs:
                self._api(_COMMAND_TIMEOUT_S).patch("/vm", {"state": "Paused"})
            # It cannot be given up halfway: to whoever hangs up, Firecracker writes on.
            self._api(time_to_write_s(memory_mib), None).put("/snapshot/create", wish)
            self.token.raise_if_cancelled()
            standing()
        finally:
            if runs:
                self._go_on(time_to_write_s(memory_mib))
        with files.memory.open("r+b") as memory:
            copy_without_zeros(raw.memory, memory.fileno(), memory_mib * MIB, self.token)
        with raw.devices.open("rb") as devices:
            files.write_devices(devices.read(_MOST_DEVICES_BYTES))

    def _make(self, raw: SavedFiles) -> None:
        """Empty files that the VMM may write to."""
        uid = Path(f"/proc/{self.machine.identity.pid}").stat().st_uid
        forget(self.machine.vmm_log)
        for path in (raw.memory, raw.devices):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            if uid != os.geteuid():
                handing.give(path, uid)

    def _go_on(self, timeout_s: float) -> None:
        """Whatever happened; a machine that is gone needs nothing.

        Firecracker refuses to listen if many have called it while it wrote, until it has noticed that they hung up.
        """
        identity, deadline = self.machine.identity, Deadline.after(timeout_s)
        while True:
            try:
                api = self._api(deadline.at_most(timeout_s), None)
                if api.get("/").get("state") == "Paused":
                    api.patch("/vm", {"state": "Resumed"})
            except ApiError as error:
                if not processes.is_same(identity):
                    return
                if deadline.expired:
                    raise BangerError(
                        ErrorKind.UNAVAILABLE, f"the VMM process {identity.pid} does not go on after it was saved",
                        subject=identity.marker, cause=str(error),
                    ) from error  # fmt: skip
                CancelToken().wait(_POLL_S)
            else:
                return

    def _api(self, timeout_s: float, token: CancelToken | None = None) -> Api:
        return Api(self.machine.run_dir / API_SOCKET, timeout_s, token)

    def _not_running(self, cause: str) -> BangerError:
        return BangerError(
            ErrorKind.CONFLICT, "the machine cannot be saved: it does not run",
            subject=self.machine.identity.marker, cause=cause,
        )  # fmt: skip

    def _failed(self, cause: str) -> BangerError:
        subject = self.machine.identity.marker
        if not processes.is_same(self.machine.identity):
            return BangerError(ErrorKind.CONFLICT, "the machine cannot be saved: it ended", subject=subject)
        hint = "start the VM anew: banger vm restart" if cause == _ANEW else ""
        return BangerError(
            ErrorKind.UNAVAILABLE, "the machine cannot be saved", subject=subject, cause=cause, hint=hint
        )
