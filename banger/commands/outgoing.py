"""Exporting and pushing images and kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.options import Destination, FormOption, PlainHttpFlag, StoredImage, StoredKernel
from banger.commands.session import CliSession
from banger.core.wire.images import ExportImageBody, PushImageBody
from banger.core.wire.kernels import PushKernelBody
from banger.core.wire.reading import mebibytes, one_of
from banger.core.wire.sizes import DefaultSizes
from banger.render.views import size

_FORMS = ("bundle", "oci")
Cpus = Annotated[int | None, Option("--cpus", min=1, metavar="N", help="Default number of virtual CPUs of its VMs.")]
Memory = Annotated[str, Option("--memory", metavar="SIZE", help="Default memory of its VMs.")]
Disk = Annotated[str, Option("--disk", metavar="SIZE", help="Default size of the writable disk of its VMs.")]


def export_image(
    ctx: Context,
    stored_image: StoredImage,
    file: Annotated[Path, Argument(metavar="FILE", help="File to create; it must not exist yet.")],
    *,
    form: FormOption = "bundle",
    cpus: Cpus = None,
    memory: Memory = "",
    disk: Disk = "",
) -> None:
    """Export an image to a file, for banger or for other tools."""
    session: CliSession = ctx.obj
    body = ExportImageBody(str(file.absolute()), one_of("--form", form, _FORMS), _sizes(cpus, memory, disk))
    written = session.long("POST", path_of("images", stored_image, "export"), body=body)
    session.show_document(written, f"{written['path']}\n")
    session.tell(f"wrote {size(written.get('size_bytes'))}")


def push_image(
    ctx: Context,
    stored_image: StoredImage,
    destination: Destination,
    *,
    form: FormOption = "bundle",
    plain_http: PlainHttpFlag = False,
    cpus: Cpus = None,
    memory: Memory = "",
    disk: Disk = "",
) -> None:
    """Upload an image to a registry."""
    one_of("--form", form, _FORMS)
    body = PushImageBody(destination, form, plain_http, _sizes(cpus, memory, disk))
    _push(ctx.obj, "images", stored_image, body)


def push_kernel(
    ctx: Context, stored_kernel: StoredKernel, destination: Destination, plain_http: PlainHttpFlag = False
) -> None:
    """Upload a kernel to a registry."""
    _push(ctx.obj, "kernels", stored_kernel, PushKernelBody(destination, plain_http))


def _sizes(cpus: int | None, memory: str, disk: str) -> DefaultSizes:
    """What the bundle suggests for its VMs; what is not given stays as the image has it."""
    return DefaultSizes(cpus or 0, mebibytes(memory) if memory else 0, mebibytes(disk) if disk else 0)


def _push(session: CliSession, collection: str, name: str, body: PushImageBody | PushKernelBody) -> None:
    pushed = session.long("POST", path_of(collection, name, "push"), body=body)
    session.show_document(pushed, f"{pushed['digest']}\n")
