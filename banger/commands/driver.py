"""``banger driver``: the VMMs on this host."""

from __future__ import annotations

from typing import Annotated, Any

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.session import CliSession
from banger.render import views

DriverName = Annotated[str, Argument(metavar="DRIVER", help="firecracker.")]


def install(
    ctx: Context,
    installable: DriverName,
    *,
    version: Annotated[str, Option(metavar="X.Y.Z", help="This version instead of the newest that banger knows.")] = "",
    taken_from: Annotated[
        str, Option("--from", metavar="FILE|DIR|URL", help="Take the release from there, not from its project.")
    ] = "",
    sha256: Annotated[
        list[str] | None,
        Option(metavar="HEX", help="Expected SHA-256 of the archive, or once for each program; may be repeated."),
    ] = None,
) -> None:
    """Download a VMM, verified against a known checksum, and install it."""
    from banger.client.drivers import install_body

    session: CliSession = ctx.obj
    body = install_body(version, taken_from, sha256 or ())
    _tell(session, session.long("POST", path_of("drivers", installable, "install"), body=body))


def list_drivers(ctx: Context) -> None:
    """List the VMMs on this host."""
    session: CliSession = ctx.obj
    session.show_list(session.client.get("/v1/drivers"), views.DRIVER_COLUMNS, key="name")


def remove(
    ctx: Context,
    installable: DriverName,
    *,
    version: Annotated[str, Option(metavar="X.Y.Z", help="Which one, if several are installed.")] = "",
) -> None:
    """Remove a VMM that was installed, and that no VM runs on."""
    session: CliSession = ctx.obj
    query = {"version": version} if version else None
    _tell(session, session.long("DELETE", path_of("drivers", installable), query))


def _tell(session: CliSession, done: Any) -> None:
    session.show_document(done, f"{done['name']} {done['version']}\n")
