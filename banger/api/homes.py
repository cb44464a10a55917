"""Routes of home disks, which can outlive their VMs."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.api.context import context_of
from banger.core import codec


async def list_homes(request: Request) -> Response:
    """Every home disk, with the name of the VM that has it and what it occupies."""
    context = context_of(request)
    names = {vm.id: vm.name for vm in context.store.vms.all()}
    homes = await asyncio.to_thread(context.vms.homes.homes)
    return JSONResponse(
        [
            {
                **codec.to_plain(home),
                "vm": names.get(home.vm_id, ""),
                "disk_bytes": context.vms.homes.occupied(home.name),
            }
            for home in homes
        ]
    )


async def delete_home(request: Request) -> Response:
    """Delete one that no VM has."""
    context, name = context_of(request), request.path_params["query"]
    await asyncio.to_thread(context.vms.homes.delete, name)
    return JSONResponse({"name": name})
