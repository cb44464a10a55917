"""Routes of the VMMs on this host."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.actors.messages import InstallDriver, RemoveDriver
from banger.api.bodies import read_body
from banger.api.context import context_of
from banger.api.long_requests import perform
from banger.api.views import driver_view
from banger.core import codec
from banger.core.ports import ReleaseRequest
from banger.core.wire.drivers import InstallDriverBody
from banger.vmm.programs import all_programs


async def list_drivers(request: Request) -> Response:
    """Every VMM, with the VMs that run on it."""
    context = context_of(request)
    programs = await asyncio.to_thread(all_programs, context.layout, context.config)
    vms = context.store.vms.all()
    return JSONResponse([driver_view(program, vms) for program in programs])


async def install_driver(request: Request) -> Response:
    """Have a release."""
    body = await read_body(request, InstallDriverBody)
    wanted = ReleaseRequest(body.version, body.source, body.sums)
    command = InstallDriver(request.path_params["query"], wanted)
    return await perform(request, command, lambda one: {"id": one.id, **codec.to_plain(one)})


async def remove_driver(request: Request) -> Response:
    """Remove a release, through the same queue as installing it."""
    version = request.query_params.get("version", "")
    return await perform(request, RemoveDriver(request.path_params["query"], version))
