"""Routes of VMs, but for the frame streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from banger.actors.messages import (
    CreateVm,
    DeleteVm,
    GrowVm,
    KillVm,
    PauseVm,
    RestartVm,
    ResumeVm,
    StartVm,
    StopVm,
    SuspendVm,
    VmCommand,
)
from banger.api.bodies import read_body
from banger.api.context import ApiContext, context_of
from banger.api.long_requests import deadline_of, is_set, perform
from banger.api.ndjson import MEDIA_TYPE, line
from banger.api.peer import peer_uid
from banger.api.views import vm_facts, vm_view
from banger.api.vm_texts import VmTexts
from banger.core.cancel import Deadline
from banger.core.codec import to_plain
from banger.core.errors import BangerError, ErrorKind
from banger.core.lookup import not_found
from banger.core.models import Vm, VmState
from banger.core.names import check_vm_name, made_up_name, new_id
from banger.core.states import LIVE, check_running
from banger.core.units import parse_duration
from banger.core.wire.vms import CreateVmBody, GrowBody
from banger.guest.known_hosts import host_key_alias, known_hosts_line

#: How often a followed log and a waited-for state are looked at, in seconds.
POLL_S = 0.1
_CHUNK = 64 * 1024
#: Of the lists that were answered; all of them are in the event loop's thread.
_TEXTS = VmTexts(to_plain)


def find_vm(request: Request) -> Vm:
    """The VM that the path addresses."""
    return context_of(request).store.vms.find(request.path_params["query"])


async def list_vms(request: Request) -> Response:
    """Every VM, or those with ``?state=`` and every ``?label=key[=value]``."""
    context = context_of(request)
    states = request.query_params.getlist("state")
    labels = [label.partition("=") for label in request.query_params.getlist("label")]
    chosen = [
        vm
        for vm in context.store.vms.of_users()
        if (not states or vm.state in states)
        and all(key in vm.spec.labels and (not eq or vm.spec.labels[key] == value) for key, eq, value in labels)
    ]
    return Response(_TEXTS.array(vm_facts(context, chosen)), media_type="application/json")


async def show_vm(request: Request) -> Response:
    """One VM."""
    return JSONResponse(vm_view(context_of(request), find_vm(request)))


def create_command(context: ApiContext, body: CreateVmBody, owner_uid: int) -> CreateVm:
    """The command for a new VM, its name checked or made up."""
    name = check_vm_name(body.name) if body.name else made_up_name({vm.name for vm in context.store.vms.all()})
    return CreateVm(new_id(), name, body.spec, owner_uid=owner_uid, start=body.start, is_name_made_up=not body.name)


async def create_vm(request: Request) -> Response:
    """Create, and start if requested."""
    context = context_of(request)
    command = create_command(context, await read_body(request, CreateVmBody), peer_uid(request))
    return await _perform(request, command)


async def start_vm(request: Request) -> Response:
    """Start; a running VM is left alone, a suspended one goes on, or boots with ``?cold=true``."""
    vm = find_vm(request)
    return await _perform(request, StartVm(vm.id, vm.name, cold=is_set(request, "cold")))


async def stop_vm(request: Request) -> Response:
    """Stop; ``?timeout_s=`` is how long the guest may take, not the caller's patience."""
    vm = find_vm(request)
    return await _perform(request, StopVm(vm.id, vm.name, _grace_s(request)), Deadline.never())


async def restart_vm(request: Request) -> Response:
    """Stop and start as one; ``?timeout_s=`` as for stop. One that is stopped is started."""
    vm = find_vm(request)
    return await _perform(request, RestartVm(vm.id, vm.name, _grace_s(request)), Deadline.never())


def _grace_s(request: Request) -> float | None:
    """How long the guest may take to power off, if the caller says so."""
    grace = request.query_params.get("timeout_s")
    return parse_duration(grace) if grace else None


async def kill_vm(request: Request) -> Response:
    """Kill."""
    vm = find_vm(request)
    return await _perform(request, KillVm(vm.id, vm.name))


async def pause_vm(request: Request) -> Response:
    """Stop its CPUs; memory stays."""
    vm = find_vm(request)
    return await _perform(request, PauseVm(vm.id, vm.name))


async def resume_vm(request: Request) -> Response:
    """Let a paused one go on."""
    vm = find_vm(request)
    return await _perform(request, ResumeVm(vm.id, vm.name))


async def suspend_vm(request: Request) -> Response:
    """Save its machine to the disk and end it."""
    vm = find_vm(request)
    return await _perform(request, SuspendVm(vm.id, vm.name))


async def grow_vm(request: Request) -> Response:
    """Make the disk of a stopped one larger."""
    body = await read_body(request, GrowBody)
    vm = find_vm(request)
    return await _perform(request, GrowVm(vm.id, vm.name, body.disk_mib))


async def delete_vm(request: Request) -> Response:
    """Delete; ``?force=true`` also while it runs."""
    vm = find_vm(request)
    return await perform(
        request, DeleteVm(vm.id, vm.name, force=is_set(request, "force"), keep_home=is_set(request, "keep_home"))
    )


async def _perform(request: Request, command: VmCommand, deadline: Deadline | None = None) -> Response:
    context = context_of(request)
    return await perform(request, command, lambda vm: vm_view(context, vm), deadline)


async def facts(request: Request) -> Response:
    """What the guest says about itself now."""
    context, vm = context_of(request), find_vm(request)
    return JSONResponse(to_plain(await context.vms.sessions.machines.facts(vm)))


async def access(request: Request) -> Response:
    """What the user's own ssh needs. The known_hosts file is written here, so that it is always true."""
    context, vm = context_of(request), find_vm(request)
    if not _sleeps(context, vm):  # one that does is woken by the connection
        check_running(vm)
    found = context.vms.access(vm)
    known_hosts = context.layout.vm_dir(vm.id) / "known_hosts"
    _keep(known_hosts, known_hosts_line(found))
    return JSONResponse(
        {
            "user": found.user,
            "private_key_path": found.private_key_path,
            "known_hosts_path": str(known_hosts),
            "host_key": found.host_key,
            "host_key_alias": host_key_alias(vm.id),
        }
    )


def _sleeps(context: ApiContext, vm: Vm) -> bool:
    """It is suspended, or on the way there or back."""
    if vm.state is VmState.STARTING:
        return context.layout.suspended_dir(vm.id).exists()
    return vm.state in (VmState.SUSPENDED, VmState.SUSPENDING)


def _keep(path: Path, text: str) -> None:
    """Write a file unless it says so already: on a full disk it may be all that is left of it."""
    with suppress(OSError):
        if path.read_text(encoding="utf-8") == text:
            return
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text)
    fresh.replace(path)


async def wait_vm(request: Request) -> Response:
    """Stream one result once the VM has reached ``?until=`` (``stopped`` or ``running``)."""
    context, vm = context_of(request), find_vm(request)
    until = request.query_params.get("until", "stopped")
    if until not in ("stopped", "running"):
        raise BangerError(
            ErrorKind.USAGE, f'"{until}" is nothing to wait for', subject=until, hint="stopped or running"
        )
    deadline = deadline_of(request)

    async def lines() -> AsyncIterator[bytes]:
        while True:
            now = context.store.vms.get(vm.id)
            if _reached(now, until):
                yield line({"result": vm_view(context, now or vm)})
                return
            if now is None:  # it was deleted, and will never run
                yield line({"error": not_found(vm.name, "vm", ()).to_dict()})
                return
            if deadline.expired:
                error = BangerError(ErrorKind.TIMEOUT, f'VM "{vm.name}" is not {until} yet', subject=vm.name)
                yield line({"error": error.to_dict()})
                return
            await asyncio.sleep(deadline.at_most(POLL_S))

    return StreamingResponse(lines(), media_type=MEDIA_TYPE)


def _reached(vm: Vm | None, until: str) -> bool:
    if vm is None:
        return until == "stopped"
    if until == "running":
        return vm.state is VmState.RUNNING
    # One that is about to come back has not stopped, nor has one that sleeps.
    return vm.state not in (*LIVE, VmState.SUSPENDED) and vm.restarts.due_at is None


async def logs(request: Request) -> Response:
    """The console's (or ``?source=vmm``) log; ``?tail=N`` lines of it, and with ``?follow=true`` what comes."""
    context, vm = context_of(request), find_vm(request)
    source = request.query_params.get("source", "console")
    if source not in ("console", "vmm"):
        raise BangerError(ErrorKind.USAGE, f'"{source}" is not a log', subject=source, hint="console or vmm")
    path = context.layout.vm_dir(vm.id) / f"{source}.log"
    tail = request.query_params.get("tail")
    if tail is not None and not re.fullmatch("[0-9]{1,18}", tail):
        raise BangerError(ErrorKind.USAGE, f'"{tail}" is not a number of lines', subject=tail)
    offset = _tail_offset(path, int(tail)) if tail is not None else 0
    return StreamingResponse(
        _log(context, vm.id, path, offset, follow=is_set(request, "follow")), media_type="text/plain; charset=utf-8"
    )


async def _log(context: ApiContext, vm_id: str, path: Path, offset: int, *, follow: bool) -> AsyncIterator[bytes]:
    """What is there from ``offset`` on; and what comes, if that is to be followed: a guest may never stop writing."""
    end = None if follow else _size(path)
    while end is None or offset < end:
        vm = context.store.vms.get(vm_id)
        chunk = _read(path, offset)
        if chunk is None and follow:  # rotated: what is there now is new
            offset = 0
        elif chunk:
            chunk = chunk if end is None else chunk[: end - offset]
            offset += len(chunk)
            yield chunk
        elif not follow or vm is None or vm.state not in LIVE:
            return
        else:
            await asyncio.sleep(POLL_S)


def _read(path: Path, offset: int) -> bytes | None:
    """Bytes from ``offset`` on; None if the file is shorter than that now."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size < offset:
                return None
            file.seek(offset)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _tail_offset(path: Path, lines: int) -> int:
    """Where the last ``lines`` lines begin; found from the end, in bounded memory."""
    at = size = _size(path)
    wanted = lines
    while at and wanted and (piece := _read(path, max(0, at - _CHUNK))):
        start = max(0, at - _CHUNK)
        piece = piece[: at - start]
        if at == size:
            piece = piece.removesuffix(b"\n")  # ends the last line, begins none
        end = len(piece)
        while (found := piece.rfind(b"\n", 0, end)) >= 0:
            wanted, end = wanted - 1, found
            if not wanted:
                return start + found + 1
        at = start
    return 0 if wanted else size
