"""Routes of snapshots, and of VMs that are made from them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.actors.messages import (
    Copy,
    CreateSnapshot,
    CreateVm,
    DeleteSnapshot,
    ExportSnapshot,
    ForkVm,
    ImportSnapshot,
    RewindVm,
)
from banger.api.artifacts import check_absolute
from banger.api.bodies import read_body
from banger.api.context import ApiContext, context_of
from banger.api.long_requests import perform
from banger.api.peer import peer_uid
from banger.api.views import snapshot_view, vm_view
from banger.api.vms import find_vm
from banger.bundle.snapshot_archive import LocalSnapshotArchives
from banger.core.forking import check_fork_ports, fork_names, forked_spec, numbered_name
from banger.core.models import Snapshot
from banger.core.names import check_snapshot_name, check_vm_name, new_id
from banger.core.origin import Origin
from banger.core.publishing import check_forwards
from banger.core.wire.snapshots import (
    CreateSnapshotBody,
    ExportSnapshotBody,
    ForkBody,
    ImportSnapshotBody,
    RestoreBody,
    RewindBody,
)


async def list_snapshots(request: Request) -> Response:
    """Every snapshot."""
    context = context_of(request)
    return JSONResponse([snapshot_view(context, snapshot) for snapshot in context.store.snapshots.all()])


async def show_snapshot(request: Request) -> Response:
    """One snapshot."""
    return JSONResponse(snapshot_view(context_of(request), _find(request)))


async def create_snapshot(request: Request) -> Response:
    """Take a snapshot of a VM."""
    context, vm = context_of(request), find_vm(request)
    body = await read_body(request, CreateSnapshotBody)
    taken = {snapshot.name for snapshot in context.store.snapshots.all()}
    name = check_snapshot_name(body.name) if body.name else numbered_name(vm.name, taken)
    command = CreateSnapshot(name, vm.id, vm.name, peer_uid(request), body.stop, is_name_made_up=not body.name)
    return await perform(request, command, lambda snapshot: snapshot_view(context, snapshot))


async def delete_snapshot(request: Request) -> Response:
    """Delete a snapshot; VMs that were made from it stay."""
    snapshot = _find(request)
    return await perform(request, DeleteSnapshot(snapshot.name, snapshot.id))


async def export_snapshot(request: Request) -> Response:
    """Write a snapshot to a file of this host."""
    snapshot = _find(request)
    body = await read_body(request, ExportSnapshotBody)
    check_absolute(body.path)
    return await perform(request, ExportSnapshot(snapshot.name, snapshot.id, body.path))


async def import_snapshot(request: Request) -> Response:
    """Take in a snapshot that was exported."""
    context, body = context_of(request), await read_body(request, ImportSnapshotBody)
    check_absolute(body.path)
    name = body.name
    if not name:
        record = await asyncio.to_thread(LocalSnapshotArchives().read, Path(body.path))
        name = record.snapshot.name
    command = ImportSnapshot(check_snapshot_name(name), body.path, peer_uid(request))
    return await perform(request, command, lambda snapshot: snapshot_view(context, snapshot))


async def restore(request: Request) -> Response:
    """Make and start a VM from a snapshot."""
    context, snapshot = context_of(request), _find(request)
    body = await read_body(request, RestoreBody)
    check_forwards(body.ports)
    origin = Origin(snapshot, context.layout.snapshot_dir(snapshot.id))
    name = check_vm_name(body.name) if body.name else _free_name(snapshot.vm_name, _vm_names(context))
    spec = forked_spec(snapshot.spec, body.ports)
    command = CreateVm(new_id(), name, spec, owner_uid=peer_uid(request), start=True, origin=origin)
    return await perform(request, command, lambda vm: vm_view(context, vm))


async def rewind(request: Request) -> Response:
    """Have a VM go on, in its place, from a snapshot of itself."""
    context, vm = context_of(request), find_vm(request)
    body = await read_body(request, RewindBody)
    command = RewindVm(vm.id, vm.name)
    if body.snapshot:
        snapshot = context.store.snapshots.find(body.snapshot)
        command = RewindVm(vm.id, vm.name, snapshot.id, snapshot.name)
    return await perform(request, command, lambda rewound: vm_view(context, rewound))


async def fork_vm(request: Request) -> Response:
    """Make and start copies of a running VM."""
    vm = find_vm(request)
    return await _fork(request, vm.name, vm.id, "", vm.name)


async def fork_snapshot(request: Request) -> Response:
    """Make and start VMs from a snapshot."""
    snapshot = _find(request)
    return await _fork(request, snapshot.name, snapshot.vm_id, snapshot.id, snapshot.vm_name)


async def _fork(request: Request, subject: str, vm_id: str, snapshot_id: str, base: str) -> Response:
    context = context_of(request)
    body = await read_body(request, ForkBody)
    check_forwards(body.ports)
    check_fork_ports(body.ports, body.count)
    copies = tuple(Copy(new_id(), name) for name in fork_names(body.name, body.count, base, _vm_names(context)))
    command = ForkVm(
        new_id(), subject, vm_id, snapshot_id=snapshot_id, copies=copies, ports=body.ports, owner_uid=peer_uid(request)
    )
    return await perform(request, command, lambda vms: [vm_view(context, vm) for vm in vms])


def _find(request: Request) -> Snapshot:
    """The snapshot that the path addresses."""
    return context_of(request).store.snapshots.find(request.path_params["query"])


def _vm_names(context: ApiContext) -> set[str]:
    return {vm.name for vm in context.store.vms.all()}


def _free_name(base: str, taken: Collection[str]) -> str:
    return numbered_name(base, taken) if base in taken else base
