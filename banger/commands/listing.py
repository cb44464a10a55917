"""The lists: VMs, images, kernels, catalog, operations."""

from __future__ import annotations

from typing import Annotated

from typer import Context, Option

from banger.commands.options import LabelFilter
from banger.commands.session import CliSession
from banger.render import views

#: ``ps -a`` and ``image ls -a`` of other tools.
AllListed = Annotated[bool, Option("--all", "-a", hidden=True, help="All are listed anyway.")]


def list_vms(
    ctx: Context,
    state: Annotated[str | None, Option(help="Only VMs in this state.")] = None,
    label: LabelFilter = None,
    _all: AllListed = False,
) -> None:
    """List VMs."""
    session: CliSession = ctx.obj
    session.show_list(session.client.get("/v1/vms", {"state": state, "label": label}), views.VM_COLUMNS)


def list_homes(ctx: Context) -> None:
    """List home disks."""
    session: CliSession = ctx.obj
    session.show_list(session.client.get("/v1/homes"), views.HOME_COLUMNS, key="name")


def list_images(ctx: Context, _all: AllListed = False) -> None:
    """List images."""
    session: CliSession = ctx.obj
    session.show_list(session.client.get("/v1/images"), views.ARTIFACT_COLUMNS)


def list_kernels(ctx: Context, _all: AllListed = False) -> None:
    """List kernels."""
    session: CliSession = ctx.obj
    session.show_list(session.client.get("/v1/kernels"), views.ARTIFACT_COLUMNS)


def list_catalog(ctx: Context) -> None:
    """List the images and kernels in the catalog."""
    session: CliSession = ctx.obj
    catalog = session.client.get("/v1/catalog")
    if session.json:
        session.show_document(catalog, "")
        return
    rows = [{"kind": kind, **entry} for kind in ("image", "kernel") for entry in catalog[f"{kind}s"]]
    session.show_list(rows, views.CATALOG_COLUMNS, key="name")


def list_operations(ctx: Context) -> None:
    """List operations."""
    session: CliSession = ctx.obj
    session.show_list(session.client.get("/v1/operations"), views.OPERATION_COLUMNS)
