"""Routes of the daemon itself and of operations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from banger import __version__
from banger.actors.messages import Prune, ReconcileHost
from banger.api.bodies import read_body
from banger.api.context import context_of
from banger.api.long_requests import follow, is_set, operation_view, perform
from banger.api.ndjson import MEDIA_TYPE
from banger.core import codec
from banger.core.errors import BangerError
from banger.core.models import VmState
from banger.core.snapshot_rules import PruneRule
from banger.core.wire.system import PruneBody
from banger.layout import Layout


async def show_system(request: Request) -> Response:
    """The daemon."""
    context = context_of(request)
    driver = context.system.vmms.drivers.default
    engine = await asyncio.to_thread(driver.engines.choose, "", "")
    try:
        launcher = dict(await asyncio.to_thread(context.system.vmms.launcher.describe))
    except BangerError as error:  # VMs cannot be started; the daemon answers all the same, and can be stopped
        launcher = {"error": str(error)}
    vms = context.store.vms.of_users()
    return JSONResponse(
        {
            "version": __version__,
            "pid": os.getpid(),
            "uid": os.getuid(),
            "started_at": codec.to_plain(context.system.started_at),
            "data_dir": str(context.layout.data),
            "socket": str(context.layout.socket),
            "schema_version": context.store.database.schema_version,
            "vmm": driver.name,
            "accelerator": engine.accelerator,
            "accelerator_reason": engine.reason,
            "launcher": launcher,
            "dns": [str(server) for server in context.system.dns.listening] if context.system.dns else [],
            "vms": {"total": len(vms), "running": sum(vm.state is VmState.RUNNING for vm in vms)},
            "operations": len(context.supervisor.operations.active()),
        }
    )


async def shutdown(request: Request) -> Response:
    """Stop the daemon; VMs that run go on. The answer is sent first."""
    return JSONResponse({"stopping": True}, status_code=202, background=BackgroundTask(context_of(request).system.stop))


async def reconcile(request: Request) -> Response:
    """Reconcile everything now; ``?dry_run=true`` only tells, ``?fix=true`` spares nothing that is nobody's."""
    return await perform(request, ReconcileHost(dry_run=is_set(request, "dry_run"), fix=is_set(request, "fix")))


async def list_objects(request: Request) -> Response:
    """Everything of this installation that is on the host, and whose it is; ``?leaks=true`` only what is nobody's."""
    found = await asyncio.to_thread(context_of(request).system.inventory)
    only = is_set(request, "leaks")
    return JSONResponse([codec.to_plain(one) for one in found if one.is_leak or not only])


async def prune(request: Request) -> Response:
    """Remove content that nothing needs."""
    body = await read_body(request, PruneBody)
    snapshots = PruneRule(0 if body.unused and body.keep is None else body.keep, body.older_than_s)
    if body.vm:  # one that is gone is named by its id
        context = context_of(request)
        known = {vm.id for vm in context.store.vms.all()} | {one.vm_id for one in context.store.snapshots.all()}
        snapshots = replace(snapshots, vm_id=body.vm if body.vm in known else context.store.vms.find(body.vm).id)
    return await perform(request, Prune(body.nouns, body.unused, body.dry_run, snapshots))


async def disk_usage(request: Request) -> Response:
    """What banger occupies, by kind, and what is free."""
    layout = context_of(request).layout
    usage = await asyncio.to_thread(
        lambda: {
            "images_bytes": _occupied([layout.data / "images"]),
            "kernels_bytes": _occupied([layout.data / "kernels"]),
            "vms_bytes": _occupied([layout.data / "vms"]) - _occupied(_suspended(layout)),
            "suspended_bytes": _occupied(_suspended(layout)),
            "snapshots_bytes": _occupied([layout.data / "snapshots"]),
            "templates_bytes": _occupied([layout.data / "templates"]),
            "blobs_bytes": _occupied([layout.blobs]),
            "evidence_bytes": _occupied([layout.evidence]),
            "drivers_bytes": _occupied([layout.data / "drivers"]),
            "staging_bytes": _occupied([layout.staging, layout.trash]),
            "free_bytes": os.statvfs(layout.data).f_bavail * os.statvfs(layout.data).f_frsize,
        }
    )
    return JSONResponse(usage)


def _suspended(layout: Layout) -> Iterable[Path]:
    """Where the machines of suspended VMs are."""
    return (layout.data / "vms").glob("*/suspended")


def _occupied(roots: Iterable[Path]) -> int:
    """Bytes allocated below ``roots``; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for root in roots:
        for directory, _, names in os.walk(root):
            for name in names:
                try:
                    status = Path(directory, name).lstat()
                except FileNotFoundError:
                    continue
                seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


async def list_operations(request: Request) -> Response:
    """Operations, oldest first; ``?state=`` chooses."""
    states = request.query_params.getlist("state")
    operations = context_of(request).supervisor.operations.all()
    return JSONResponse([operation_view(op) for op in operations if not states or op.state in states])


async def show_operation(request: Request) -> Response:
    """One operation."""
    return JSONResponse(operation_view(context_of(request).supervisor.operations.find(request.path_params["query"])))


async def follow_operation(request: Request) -> Response:
    """Its events so far and to come."""
    operation = context_of(request).supervisor.operations.find(request.path_params["query"])
    return StreamingResponse(follow(operation), media_type=MEDIA_TYPE)


async def cancel_operation(request: Request) -> Response:
    """Cancel it for everybody who waits for it."""
    operation = context_of(request).supervisor.operations.find(request.path_params["query"])
    operation.cancel("cancelled by request")
    return JSONResponse(operation_view(operation))
