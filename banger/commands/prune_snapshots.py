"""``snapshot prune``: snapshots that go by a rule."""

from __future__ import annotations

from typing import Annotated

from typer import Context, Option

from banger.commands.options import DryRunFlag
from banger.commands.prune import prune
from banger.commands.session import CliSession
from banger.core.units import parse_duration
from banger.core.wire.system import PruneBody


def prune_snapshots(
    ctx: Context,
    *,
    keep: Annotated[
        int | None, Option("--keep", min=0, metavar="N", help="Keep the newest N of each VM, and delete the others.")
    ] = None,
    older_than: Annotated[
        str, Option("--older-than", metavar="TIME", help="Delete only what is older than this: 12h, 7d.")
    ] = "",
    vm: Annotated[str, Option("--vm", metavar="VM", help="Only snapshots of this VM.")] = "",
    dry_run: DryRunFlag = False,
) -> None:
    """Delete checkpoints of VMs that are gone, or snapshots by age or number."""
    session: CliSession = ctx.obj
    older_than_s = parse_duration(older_than) if older_than else None
    prune(session, PruneBody(("snapshot",), dry_run=dry_run, keep=keep, older_than_s=older_than_s, vm=vm))
