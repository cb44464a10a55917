"""``banger home``: home disks, which VMs mount on ``/root``."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Context

from banger.client import path_of
from banger.commands.session import CliSession


def delete(ctx: Context, homes: Annotated[list[str], Argument(metavar="HOME...", help="Names of home disks.")]) -> None:
    """Delete home disks that no VM uses."""
    session: CliSession = ctx.obj
    for home in homes:
        session.client.call("DELETE", path_of("homes", home))
    session.show_document([{"name": home} for home in homes], "".join(f"{home}\n" for home in homes))
