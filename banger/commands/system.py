"""The installation as a whole: reconcile, disk usage, version."""

from __future__ import annotations

from typing import Annotated

from typer import Context, Option

from banger import __version__
from banger.commands.session import CliSession
from banger.render.details import fields_text
from banger.render.views import size

_USAGE = ("images", "kernels", "vms", "suspended", "snapshots", "templates", "blobs", "evidence", "staging")


def reconcile(
    ctx: Context,
    *,
    dry_run: Annotated[bool, Option("--dry-run", "-n", help="Only show what would be done.")] = False,
) -> None:
    """Compare banger's records with the host and repair differences."""
    session: CliSession = ctx.obj
    done = session.long("POST", "/v1/system/reconcile", {"dry_run": True} if dry_run else None)
    fields = [(what, ", ".join(names)) for what, names in done.items() if names]
    session.show_document(done, fields_text(fields) or "nothing to repair\n")


def df(ctx: Context) -> None:
    """Show disk usage."""
    session: CliSession = ctx.obj
    usage = session.client.get("/v1/system/df")
    used = [(name, size(usage.get(f"{name}_bytes"))) for name in _USAGE]
    session.show_document(usage, fields_text([*used, ("free", size(usage.get("free_bytes")))]))


def version(ctx: Context) -> None:
    """Print the version."""
    session: CliSession = ctx.obj
    session.show_document({"version": __version__}, f"banger {__version__}\n")
