"""The show commands: details of VMs, images, kernels, an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from typer import Argument, Context

from banger.client import path_of
from banger.commands.options import Operation, SeveralImages, SeveralKernels, SeveralSnapshots, SeveralVms
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.render import details
from banger.render.terminal import Terminal

Page = Callable[[Mapping[str, Any], Terminal], str]
#: What a name may mean, in the order in which it is looked for.
_PAGES: Mapping[str, Page] = {
    "vms": details.vm_page,
    "images": details.artifact_page,
    "kernels": details.artifact_page,
}


def show_vms(ctx: Context, vms: SeveralVms) -> None:
    """Show details of VMs."""
    _show(ctx.obj, "vms", vms, details.vm_page)


def show_images(ctx: Context, images: SeveralImages) -> None:
    """Show details of images."""
    _show(ctx.obj, "images", images, details.artifact_page)


def show_kernels(ctx: Context, kernels: SeveralKernels) -> None:
    """Show details of kernels."""
    _show(ctx.obj, "kernels", kernels, details.artifact_page)


def inspect(ctx: Context, objects: Annotated[list[str], Argument(metavar="NAME...", help="Names or ids.")]) -> None:
    """Show all that is known about VMs, images or kernels."""
    session: CliSession = ctx.obj
    found = [_find(session, name) for name in objects]
    session.show_document(
        [item for item, _ in found] if len(found) > 1 else found[0][0],
        lambda terminal: "\n".join(page(item, terminal) for item, page in found),
    )


def _find(session: CliSession, name: str) -> tuple[Mapping[str, Any], Page]:
    """A VM of that name, or else an image, or else a kernel."""
    missing: BangerError | None = None
    for collection, page in _PAGES.items():
        try:
            return session.client.get(path_of(collection, name)), page
        except BangerError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            missing = missing or error
    raise missing or BangerError(ErrorKind.NOT_FOUND, f'"{name}" not found', subject=name)


def show_snapshots(ctx: Context, snapshots: SeveralSnapshots) -> None:
    """Show details of snapshots."""
    _show(ctx.obj, "snapshots", snapshots, details.snapshot_page)


def show_operation(ctx: Context, operation: Operation) -> None:
    """Show an operation and its steps."""
    _show(ctx.obj, "operations", [operation], details.operation_page)


def _show(session: CliSession, collection: str, names: Sequence[str], page: Page) -> None:
    found = [session.client.get(path_of(collection, name)) for name in names]
    session.show_document(
        found[0] if len(found) == 1 else found,
        lambda terminal: "\n".join(page(item, terminal) for item in found),
    )
