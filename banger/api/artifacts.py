"""Routes of images, kernels and the catalog."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.actors.messages import DeleteImage, DeleteKernel, PullKernel
from banger.api.bodies import ImportKernelBody, PullImageBody, PullKernelBody, read_body
from banger.api.context import context_of
from banger.api.long_requests import perform
from banger.api.peer import peer_uid
from banger.api.views import image_view, kernel_view
from banger.core import codec
from banger.core.names import check_artifact_name
from banger.core.ports import KernelRequest


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
    command = context.resolver.pull_image(
        body.reference,
        name=body.name,
        platform=body.platform,
        plain_http=body.plain_http,
        size_mib=body.size_mib,
        owner_uid=peer_uid(request),
    )
    return await perform(request, command, lambda image: image_view(context, image))


async def delete_image(request: Request) -> Response:
    """Delete through the same queue as pulling it."""
    image = context_of(request).store.images.find(request.path_params["query"])
    return await perform(request, DeleteImage(image.name or image.id, image.id))


async def list_kernels(request: Request) -> Response:
    """Every kernel."""
    context = context_of(request)
    return JSONResponse([kernel_view(context, kernel) for kernel in context.store.kernels.all()])


async def show_kernel(request: Request) -> Response:
    """One kernel."""
    context = context_of(request)
    return JSONResponse(kernel_view(context, context.store.kernels.find(request.path_params["query"])))


async def pull_kernel(request: Request) -> Response:
    """Pull a kernel of the catalog."""
    context = context_of(request)
    body = await read_body(request, PullKernelBody)
    command = context.resolver.pull_kernel(body.name, owner_uid=peer_uid(request))
    return await perform(request, command, lambda kernel: kernel_view(context, kernel))


async def import_kernel(request: Request) -> Response:
    """Import kernel files of this host."""
    context = context_of(request)
    body = await read_body(request, ImportKernelBody)
    wanted: dict[str, Any] = codec.to_plain(body)
    name = check_artifact_name(wanted.pop("name"), "kernel")
    command = PullKernel(name, KernelRequest(**wanted), refresh=True, owner_uid=peer_uid(request))
    return await perform(request, command, lambda kernel: kernel_view(context, kernel))


async def delete_kernel(request: Request) -> Response:
    """Delete through the same queue as pulling it."""
    kernel = context_of(request).store.kernels.find(request.path_params["query"])
    return await perform(request, DeleteKernel(kernel.name or kernel.id, kernel.id))


async def list_catalog(request: Request) -> Response:
    """What can be pulled by a short name."""
    catalog = context_of(request).catalog
    return JSONResponse(codec.to_plain(catalog.entries()))
