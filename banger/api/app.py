"""All routes in one table; the application and its OpenAPI description are both made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loguru import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from banger.api import artifacts, drivers, homes, lint, sessions, snapshots, system, vms, why
from banger.api.context import ApiContext
from banger.api.ndjson import MEDIA_TYPE
from banger.api.openapi import Described, document
from banger.api.parameters import KnownParameters
from banger.core.errors import BangerError, ErrorKind, internal_error
from banger.core.evidence import Evidence
from banger.core.guest_facts import GuestFacts
from banger.core.models import Image, Kernel, Snapshot, Vm, VmmProgram, VmmRelease
from banger.core.wire.drivers import InstallDriverBody
from banger.core.wire.exec import CopyConfig, ExecConfig, RunConfig, SshConfig
from banger.core.wire.images import (
    CommitBody,
    ExportImageBody,
    PullImageBody,
    PushImageBody,
    RegisterImageBody,
    TagImageBody,
)
from banger.core.wire.kernels import ImportKernelBody, PullKernelBody, PushKernelBody
from banger.core.wire.snapshots import (
    CreateSnapshotBody,
    ExportSnapshotBody,
    ForkBody,
    ImportSnapshotBody,
    RestoreBody,
    RewindBody,
)
from banger.core.wire.system import PruneBody, RefreshCatalogBody
from banger.core.wire.vms import CreateVmBody, GrowBody

Endpoint = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A route and its description."""

    described: Described
    endpoint: Endpoint


def _entry(method: str, path: str, endpoint: Endpoint, summary: str, **facts: Any) -> Entry:
    return Entry(Described(method, path, summary, **facts), endpoint)


ROUTES: tuple[Entry, ...] = (
    _entry("GET", "/v1/system", system.show_system, "show the daemon"),
    _entry("POST", "/v1/system/shutdown", system.shutdown, "stop the daemon; VMs keep running", status=202),
    _entry("POST", "/v1/system/reconcile", system.reconcile, "reconcile", long=True, query=("dry_run", "fix")),
    _entry("GET", "/v1/system/objects", system.list_objects, "objects on the host", query=("leaks",), many=True),
    _entry("POST", "/v1/system/prune", system.prune, "remove unused objects", body=PruneBody, long=True),
    _entry("GET", "/v1/system/df", system.disk_usage, "disk usage"),
    _entry("GET", "/v1/images", artifacts.list_images, "list images", answer=Image, many=True),
    _entry(
        "POST", "/v1/images/pull", artifacts.pull_image, "pull an image", body=PullImageBody, answer=Image, long=True
    ),
    _entry(
        "POST", "/v1/images/register", artifacts.register_image, "register an image", body=RegisterImageBody, long=True
    ),
    _entry(
        "POST", "/v1/images/{query:path}/promote", artifacts.promote_image, "promote an image", answer=Image, long=True
    ),
    _entry("POST", "/v1/images/{query:path}/tag", artifacts.tag_image, "tag an image", body=TagImageBody, long=True),
    _entry(
        "POST",
        "/v1/images/{query:path}/export",
        artifacts.export_image,
        "export an image",
        body=ExportImageBody,
        long=True,
    ),
    _entry(
        "POST", "/v1/images/{query:path}/push", artifacts.push_image, "push an image", body=PushImageBody, long=True
    ),
    _entry("GET", "/v1/images/{query:path}/lint", lint.lint_image, "lint an image", query=("kernel",)),
    _entry("GET", "/v1/images/{query:path}", artifacts.show_image, "show an image", answer=Image),
    _entry("DELETE", "/v1/images/{query:path}", artifacts.delete_image, "delete an image", long=True, query=("force",)),
    _entry("GET", "/v1/kernels", artifacts.list_kernels, "list kernels", answer=Kernel, many=True),
    _entry(
        "POST",
        "/v1/kernels/pull",
        artifacts.pull_kernel,
        "pull a kernel",
        body=PullKernelBody,
        answer=Kernel,
        long=True,
    ),
    _entry("POST", "/v1/kernels/import", artifacts.import_kernel, "import a kernel", body=ImportKernelBody, long=True),
    _entry(
        "POST", "/v1/kernels/{query:path}/push", artifacts.push_kernel, "push a kernel", body=PushKernelBody, long=True
    ),
    _entry("GET", "/v1/kernels/{query:path}", artifacts.show_kernel, "show a kernel", answer=Kernel),
    _entry(
        "DELETE", "/v1/kernels/{query:path}", artifacts.delete_kernel, "delete a kernel", long=True, query=("force",)
    ),
    _entry("GET", "/v1/drivers", drivers.list_drivers, "list VMMs", answer=VmmProgram, many=True),
    _entry(
        "POST",
        "/v1/drivers/{query}/install",
        drivers.install_driver,
        "install a VMM",
        body=InstallDriverBody,
        answer=VmmRelease,
        long=True,
    ),
    _entry("DELETE", "/v1/drivers/{query}", drivers.remove_driver, "remove a VMM", long=True, query=("version",)),
    _entry("GET", "/v1/catalog", artifacts.list_catalog, "list the catalog"),
    _entry("POST", "/v1/catalog/refresh", artifacts.refresh_catalog, "refresh a catalog", body=RefreshCatalogBody),
    _entry("GET", "/v1/vms", vms.list_vms, "list VMs", answer=Vm, many=True, query=("state", "label")),
    _entry("POST", "/v1/vms", vms.create_vm, "create a VM", body=CreateVmBody, answer=Vm, long=True),
    _entry(
        "POST",
        "/v1/vms/run",
        sessions.FrameEndpoint(sessions.run),
        "create and start a VM, and run a command",
        frames=RunConfig,
    ),
    _entry("GET", "/v1/vms/{query}", vms.show_vm, "show a VM", answer=Vm),
    _entry("DELETE", "/v1/vms/{query}", vms.delete_vm, "delete a VM", long=True, query=("force", "keep_home")),
    _entry("POST", "/v1/vms/{query}/start", vms.start_vm, "start a VM", answer=Vm, long=True, query=("cold",)),
    _entry("POST", "/v1/vms/{query}/stop", vms.stop_vm, "stop a VM", answer=Vm, long=True, query=("timeout_s",)),
    _entry(
        "POST", "/v1/vms/{query}/restart", vms.restart_vm, "restart a VM", answer=Vm, long=True, query=("timeout_s",)
    ),
    _entry("POST", "/v1/vms/{query}/pause", vms.pause_vm, "pause a VM", answer=Vm, long=True),
    _entry("POST", "/v1/vms/{query}/resume", vms.resume_vm, "resume a VM", answer=Vm, long=True),
    _entry("POST", "/v1/vms/{query}/suspend", vms.suspend_vm, "suspend a VM to disk", answer=Vm, long=True),
    _entry("POST", "/v1/vms/{query}/grow", vms.grow_vm, "grow the disk", body=GrowBody, answer=Vm, long=True),
    _entry("GET", "/v1/vms/{query}/why", why.why, "why a VM stopped or failed"),
    _entry(
        "GET",
        "/v1/vms/{query}/why/archive",
        why.why_archive,
        "the same as a tar.gz, without secrets",
        media="application/gzip",
    ),
    _entry("GET", "/v1/evidence", why.list_evidence, "list evidence of failed VMs", many=True),
    _entry("GET", "/v1/evidence/{query}", why.show_evidence, "show evidence", answer=Evidence),
    _entry("POST", "/v1/vms/{query}/kill", vms.kill_vm, "kill a VM", answer=Vm, long=True),
    _entry(
        "POST", "/v1/vms/{query}/commit", artifacts.commit_vm, "make an image of the disk", body=CommitBody, long=True
    ),
    _entry(
        "POST",
        "/v1/vms/{query}/snapshots",
        snapshots.create_snapshot,
        "take a snapshot",
        body=CreateSnapshotBody,
        answer=Snapshot,
        long=True,
    ),
    _entry(
        "POST",
        "/v1/vms/{query}/rewind",
        snapshots.rewind,
        "have a VM go on from a snapshot of itself",
        body=RewindBody,
        answer=Vm,
        long=True,
    ),
    _entry(
        "POST", "/v1/vms/{query}/fork", snapshots.fork_vm, "fork a VM", body=ForkBody, answer=Vm, many=True, long=True
    ),
    _entry("GET", "/v1/snapshots", snapshots.list_snapshots, "list snapshots", answer=Snapshot, many=True),
    _entry("GET", "/v1/snapshots/{query}", snapshots.show_snapshot, "show a snapshot", answer=Snapshot),
    _entry("DELETE", "/v1/snapshots/{query}", snapshots.delete_snapshot, "delete a snapshot", long=True),
    _entry(
        "POST",
        "/v1/snapshots/import",
        snapshots.import_snapshot,
        "take in an exported snapshot",
        body=ImportSnapshotBody,
        answer=Snapshot,
        long=True,
    ),
    _entry(
        "POST",
        "/v1/snapshots/{query}/export",
        snapshots.export_snapshot,
        "write a snapshot to a file",
        body=ExportSnapshotBody,
        long=True,
    ),
    _entry(
        "POST",
        "/v1/snapshots/{query}/restore",
        snapshots.restore,
        "make a VM from a snapshot",
        body=RestoreBody,
        answer=Vm,
        long=True,
    ),
    _entry(
        "POST",
        "/v1/snapshots/{query}/fork",
        snapshots.fork_snapshot,
        "make VMs from a snapshot",
        body=ForkBody,
        answer=Vm,
        many=True,
        long=True,
    ),
    _entry("GET", "/v1/homes", homes.list_homes, "list home disks", many=True),
    _entry("DELETE", "/v1/homes/{query}", homes.delete_home, "delete a home disk"),
    _entry(
        "GET",
        "/v1/vms/{query}/wait",
        vms.wait_vm,
        "wait for a state",
        query=("until", "timeout_s", "wait"),
        media=MEDIA_TYPE,
    ),
    _entry(
        "GET",
        "/v1/vms/{query}/logs",
        vms.logs,
        "show the console or the VMM's log",
        query=("source", "follow", "tail"),
        media="text/plain",
    ),
    _entry("GET", "/v1/vms/{query}/facts", vms.facts, "figures of the running guest", answer=GuestFacts),
    _entry("GET", "/v1/vms/{query}/access", vms.access, "how to reach it with ssh"),
    _entry(
        "POST", "/v1/vms/{query}/ssh", sessions.FrameEndpoint(sessions.ssh), "connect an ssh client", frames=SshConfig
    ),
    _entry("POST", "/v1/vms/{query}/exec", sessions.FrameEndpoint(sessions.exec_), "run a command", frames=ExecConfig),
    _entry("GET", "/v1/vms/{query}/files/stat", sessions.stat, "the kind of a path", query=("path",)),
    _entry(
        "POST",
        "/v1/vms/{query}/files/put",
        sessions.FrameEndpoint(sessions.put_files),
        "unpack",
        query=("directory",),
        frames=CopyConfig,
    ),
    _entry(
        "POST",
        "/v1/vms/{query}/files/get",
        sessions.FrameEndpoint(sessions.get_files),
        "pack",
        query=("path",),
        frames=CopyConfig,
    ),
    _entry("GET", "/v1/operations", system.list_operations, "list operations", query=("state",), many=True),
    _entry("GET", "/v1/operations/{query}", system.show_operation, "show an operation"),
    _entry("GET", "/v1/operations/{query}/events", system.follow_operation, "follow its events", media=MEDIA_TYPE),
    _entry("POST", "/v1/operations/{query}/cancel", system.cancel_operation, "cancel an operation"),
)


def make_app(context: ApiContext) -> Starlette:
    """The ASGI application."""
    # Those of commands come first: what is looked for comes after each one that does not match.
    ordered = sorted(ROUTES, key=lambda entry: entry.described.frames is None)
    routes = [
        Route(
            one.described.path,
            one.endpoint,
            methods=[one.described.method],
            middleware=[Middleware(KnownParameters, one.described)],
        )
        for one in ordered
    ]
    routes.append(Route("/v1/openapi.json", _openapi, methods=["GET"]))
    app = Starlette(
        routes=routes,
        exception_handlers={BangerError: _expected, HTTPException: _http, Exception: _unexpected},
    )
    app.router.redirect_slashes = False  # an empty name is an error of its own, not another address
    app.state.context = context
    return app


async def _openapi(_request: Request) -> Response:
    return JSONResponse(document([entry.described for entry in ROUTES]))


async def _expected(_request: Request, error: Exception) -> Response:
    assert isinstance(error, BangerError)
    return JSONResponse({"error": error.to_dict()}, status_code=error.http_status)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404 and request.url.path.endswith("/"):
        empty = BangerError(ErrorKind.USAGE, "the name is empty", hint="name it by name, id or unique prefix of either")
        return await _expected(request, empty)
    kind = ErrorKind.NOT_FOUND if error.status_code == 404 else ErrorKind.USAGE
    told = BangerError(kind, f"{request.method} {request.url.path}: {error.detail}", subject=request.url.path)
    return JSONResponse({"error": told.to_dict()}, status_code=error.status_code)


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.opt(exception=error).error("{} {} failed", request.method, request.url.path)
    told = internal_error(error, f"answering {request.method} {request.url.path}")
    return JSONResponse({"error": told.to_dict()}, status_code=told.http_status)
