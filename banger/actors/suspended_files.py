"""The files of a suspended VM: published by one rename, and void from the moment in which their record is gone."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from banger.core import clock, codec
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm
from banger.core.origin import Origin, machine_in
from banger.core.suspension import Suspension
from banger.host.publish import discard, publish
from banger.layout import Layout
from banger.posix.files import sync_path

_RECORD, _UNFINISHED = "suspended.json", "suspending"


def begin(layout: Layout, vm: Vm) -> Path:
    """An empty place for a machine that is about to be saved."""
    clear(layout, vm.id)
    place = layout.vm_dir(vm.id) / _UNFINISHED
    for directory in (place, machine_in(place)):
        directory.mkdir(mode=0o700)
    return place


def finish(layout: Layout, vm: Vm, suspension: Suspension) -> None:
    """What is in that place is what the VM is suspended to from now on: it lasts when this returns."""
    place = layout.vm_dir(vm.id) / _UNFINISHED
    (place / _RECORD).write_text(json.dumps(codec.to_plain(suspension)), encoding="utf-8")
    for path in layout.vm_dir(vm.id).iterdir():
        if path.is_file():  # its disk among them, of which no later machine may know more than this one
            sync_path(path)
    publish(place, layout.suspended_dir(vm.id))


def spend(layout: Layout, vm_id: str) -> None:
    """The guest is about to do something, or its memory is given up: the machine is void, and stays void."""
    directory = layout.suspended_dir(vm_id)
    if directory.is_dir():
        (directory / _RECORD).unlink(missing_ok=True)
        sync_path(directory)


def clear(layout: Layout, vm_id: str) -> None:
    """Remove what is void, and what was not finished. What the VM is suspended to is given up, too."""
    clear_unfinished(layout, vm_id)
    if layout.suspended_dir(vm_id).exists():
        spend(layout, vm_id)
        crashpoint("vm.unsuspend:void")
        discard(layout.suspended_dir(vm_id), layout)


def clear_unfinished(layout: Layout, vm_id: str) -> None:
    """Remove what a save left that was given up."""
    discard(layout.vm_dir(vm_id) / _UNFINISHED, layout)


def is_saved(layout: Layout, vm: Vm) -> bool:
    """The VM is suspended, whatever its row says, unless it was started since; also to what cannot be read."""
    if not (layout.suspended_dir(vm.id) / _RECORD).exists():
        return False
    found = _read(layout, vm)
    return found is None or _is_of(found, vm)


def suspension_of(layout: Layout, vm: Vm) -> Suspension | None:
    """What is written down of a suspended VM, if that can be read."""
    found = _read(layout, vm)
    return found if found is not None and _is_of(found, vm) else None


def origin_of(layout: Layout, vm: Vm) -> Origin:
    """What a suspended VM goes on from. Raises ``invalid`` if that is not whole."""
    found, directory = suspension_of(layout, vm), layout.suspended_dir(vm.id)
    origin = found.origin(directory) if found else None
    machine = origin.machine if origin else None
    if origin is None or machine is None or not (machine.memory.exists() and machine.devices.exists()):
        raise BangerError(
            ErrorKind.INVALID, f'what VM "{vm.name}" was suspended to is damaged', subject=vm.name,
            cause=f"{directory} is not whole",
        )  # fmt: skip
    return origin


def _read(layout: Layout, vm: Vm) -> Suspension | None:
    with suppress(OSError, ValueError, BangerError):
        text = (layout.suspended_dir(vm.id) / _RECORD).read_text(encoding="utf-8")
        return codec.from_plain(Suspension, json.loads(text), tolerant=True)
    return None


def _is_of(found: Suspension, vm: Vm) -> bool:
    """Of this VM, and not of an earlier start. A row that knows of less starts is of a store that was put back."""
    if found.snapshot.vm_id != vm.id or found.started_at is None:
        return False
    return vm.started_at is None or clock.rfc3339(found.started_at) >= clock.rfc3339(vm.started_at)
