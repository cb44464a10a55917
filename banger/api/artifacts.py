"""Routes of images, kernels and the catalog."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.actors.messages import (
    CommitVm,
    DeleteImage,
    DeleteKernel,
    ExportImage,
    PromoteImage,
    PullKernel,
    PushImage,
    PushKernel,
    RegisterImage,
    TagImage,
)
from banger.api.bodies import read_body
from banger.api.context import context_of
from banger.api.long_requests import is_set, perform
from banger.api.peer import peer_uid
from banger.api.threads import run_in_thread
from banger.api.views import image_view, kernel_view
from banger.catalog.refresh import CatalogRequest, refresh
from banger.core import codec
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_artifact_name
from banger.core.operation import Operation
from banger.core.ports import KernelRequest, PushRequest
from banger.core.wire.images import (
    CommitBody,
    ExportImageBody,
    PullImageBody,
    PushImageBody,
    RegisterImageBody,
    TagImageBody,
)
from banger.core.wire.kernels import ImportKernelBody, PullKernelBody, PushKernelBody
from banger.core.wire.system import RefreshCatalogBody
from banger.oci.artifact_client import Registries


async def list_images(request: Request) -> Response:
    """Every image."""
    context = context_of(request)
    return JSONResponse([image_view(context, image) for image in context.store.images.all()])


async def show_image(request: Request) -> Response:
    """One image."""
    context = context_of(request)
    return JSONResponse(image_view(context, context.store.images.find(request.path_params["query"])))


async def pull_image(request: Request) -> Response:
    """Pull, or see that the tag has not moved."""
    context = context_of(request)
    body = await read_body(request, PullImageBody)
    command = context.artifacts.resolver.pull_image(
        body.reference,
        name=body.name,
        platform=body.platform,
        plain_http=body.plain_http,
        size_mib=body.size_mib,
        owner_uid=peer_uid(request),
    )
    return await perform(request, command, lambda image: image_view(context, image))


async def register_image(request: Request) -> Response:
    """Take the user's own ext4 file as an image."""
    context = context_of(request)
    body = await read_body(request, RegisterImageBody)
    name = check_artifact_name(body.name, "image")
    for path in filter(None, (body.rootfs_path, body.seed_path)):
        check_absolute(path)
    if body.kernel:
        context.artifacts.resolver.kernel(body.kernel, peer_uid(request))
    command = RegisterImage(name, body.rootfs_path, body.kernel, body.seed_path, peer_uid(request))
    return await perform(request, command, lambda image: image_view(context, image))


async def promote_image(request: Request) -> Response:
    """Copy a registered image into the store."""
    context = context_of(request)
    image = context.store.images.find(request.path_params["query"])
    return await perform(request, PromoteImage(image.name), lambda image: image_view(context, image))


async def tag_image(request: Request) -> Response:
    """One more name for the same content."""
    context = context_of(request)
    image = context.store.images.find(request.path_params["query"])
    name = check_artifact_name((await read_body(request, TagImageBody)).name, "image")
    command = TagImage(name, image.id, peer_uid(request))
    return await perform(request, command, lambda image: image_view(context, image))


async def export_image(request: Request) -> Response:
    """Write an image to a file of this host."""
    image = context_of(request).store.images.find(request.path_params["query"])
    body = await read_body(request, ExportImageBody)
    check_absolute(body.path)
    check_form(body.form)
    return await perform(request, ExportImage(image.name or image.id, image.id, body.path, body.form, body.defaults))


async def push_image(request: Request) -> Response:
    """Upload an image."""
    image = context_of(request).store.images.find(request.path_params["query"])
    body = await read_body(request, PushImageBody)
    check_form(body.form)
    push = PushRequest(body.reference, body.form, body.plain_http)
    return await perform(request, PushImage(image.name or image.id, image.id, push, body.defaults))


async def push_kernel(request: Request) -> Response:
    """Upload a kernel."""
    kernel = context_of(request).store.kernels.find(request.path_params["query"])
    body = await read_body(request, PushKernelBody)
    push = PushRequest(body.reference, plain_http=body.plain_http)
    return await perform(request, PushKernel(kernel.name or kernel.id, kernel.id, push))


async def commit_vm(request: Request) -> Response:
    """Make an image of a stopped VM's disk."""
    context = context_of(request)
    vm = context.store.vms.find(request.path_params["query"])
    body = await read_body(request, CommitBody)
    command = CommitVm(check_artifact_name(body.name, "image"), vm.id, body.keep, peer_uid(request))
    return await perform(request, command, lambda image: image_view(context, image))


def check_absolute(path: str) -> None:
    """Refuse a path that would mean something else to the daemon than to the caller, or that no file can have."""
    if "\0" in path:
        raise BangerError(ErrorKind.USAGE, "a path cannot hold a NUL character", subject=path.replace("\0", "\\0"))
    if not PurePosixPath(path).is_absolute():
        raise BangerError(ErrorKind.USAGE, f'"{path}" is not an absolute path', subject=path)


def check_form(form: str) -> None:
    """Refuse what an image cannot be exported as."""
    if form not in ("bundle", "oci"):
        raise BangerError(ErrorKind.USAGE, f'"{form}" is not a form of an image', subject=form, hint="bundle or oci")


async def delete_image(request: Request) -> Response:
    """Delete through the same queue as pulling it."""
    image = context_of(request).store.images.find(request.path_params["query"])
    return await perform(request, DeleteImage(image.name or image.id, image.id, force=is_set(request, "force")))


async def list_kernels(request: Request) -> Response:
    """Every kernel."""
    context = context_of(request)
    return JSONResponse([kernel_view(context, kernel) for kernel in context.store.kernels.all()])


async def show_kernel(request: Request) -> Response:
    """One kernel."""
    context = context_of(request)
    return JSONResponse(kernel_view(context, context.store.kernels.find(request.path_params["query"])))


async def pull_kernel(request: Request) -> Response:
    """Pull a kernel of the catalog, a registry, a web server or the distribution."""
    context = context_of(request)
    body = await read_body(request, PullKernelBody)
    command = context.artifacts.resolver.pull_kernel(body.name, source=body.source, owner_uid=peer_uid(request))
    return await perform(request, command, lambda kernel: kernel_view(context, kernel))


async def import_kernel(request: Request) -> Response:
    """Import kernel files of this host."""
    context = context_of(request)
    body = await read_body(request, ImportKernelBody)
    for path in filter(None, (body.kernel_path, body.modules_path, body.initrd_path)):
        check_absolute(path)
    wanted: dict[str, Any] = codec.to_plain(body)
    name = check_artifact_name(wanted.pop("name"), "kernel")
    command = PullKernel(name, KernelRequest(**wanted), refresh=True, owner_uid=peer_uid(request))
    return await perform(request, command, lambda kernel: kernel_view(context, kernel))


async def delete_kernel(request: Request) -> Response:
    """Delete through the same queue as pulling it."""
    kernel = context_of(request).store.kernels.find(request.path_params["query"])
    return await perform(request, DeleteKernel(kernel.name or kernel.id, kernel.id, force=is_set(request, "force")))


async def list_catalog(request: Request) -> Response:
    """What can be pulled by a short name."""
    catalog = context_of(request).artifacts.catalog
    return JSONResponse(codec.to_plain(catalog.entries()))


async def refresh_catalog(request: Request) -> Response:
    """Fetch a catalog, pinned by its digest, and use it from now on."""
    context = context_of(request)
    body = await read_body(request, RefreshCatalogBody)
    wanted = CatalogRequest.parse(body.source, body.digest, body.name)
    operation = Operation("catalog.refresh", wanted.source)
    registries = Registries(context.config)
    done = await run_in_thread(
        request, operation.token, lambda: refresh(context.artifacts.catalog, registries, wanted, operation)
    )
    return JSONResponse(codec.to_plain(done))
