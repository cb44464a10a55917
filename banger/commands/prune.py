"""The prune commands: unused images and kernels, stopped VMs, everything."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from typer import Context, Option

from banger.client import path_of
from banger.commands.options import DryRunFlag, UnusedFlag
from banger.commands.session import CliSession
from banger.commands.targets import state_of
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.plain_text import printable
from banger.core.wire.system import PruneBody
from banger.render.terminal import Terminal
from banger.render.views import VM_COLUMNS, size


def prune_images(ctx: Context, unused: UnusedFlag = False, dry_run: DryRunFlag = False) -> None:
    """Delete images and downloads that are no longer needed."""
    prune(ctx.obj, PruneBody(("image",), unused, dry_run))


def prune_kernels(ctx: Context, unused: UnusedFlag = False, dry_run: DryRunFlag = False) -> None:
    """Delete kernels that are no longer needed."""
    prune(ctx.obj, PruneBody(("kernel",), unused, dry_run))


def prune_system(
    ctx: Context,
    unused: UnusedFlag = False,
    snapshots: Annotated[
        bool, Option("--snapshots", help="Also delete checkpoints of VMs that are gone; with --all, all snapshots.")
    ] = False,
    dry_run: DryRunFlag = False,
) -> None:
    """Delete images, kernels, templates and downloads that are no longer needed."""
    nouns = ("snapshot",) * snapshots + ("image", "kernel", "evidence", "template")
    prune(ctx.obj, PruneBody(nouns, unused, dry_run))


def prune_vms(
    ctx: Context,
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: DryRunFlag = False,
) -> int:
    """Delete all stopped VMs."""
    session: CliSession = ctx.obj
    stopped = [vm for vm in session.client.get("/v1/vms", {"state": "stopped"}) if state_of(vm) == "stopped"]
    if dry_run:
        session.show_list(stopped, VM_COLUMNS)
        return 0
    if not stopped:
        session.tell("no VM is stopped")
    elif not yes:
        _confirm(stopped)
    return session.each([vm["id"] for vm in stopped], "DELETE", lambda vm: path_of("vms", vm))


def prune(session: CliSession, body: PruneBody) -> None:
    """Have it done, and tell what went and what stayed."""
    report = session.long("POST", "/v1/system/prune", body=body)
    session.show_document(report, "".join(f"{printable(line)}\n" for line in report["removed"]))
    for line in report["kept"]:
        session.tell(f"kept {line}")
    if report["removed"]:
        session.tell(f"{'would free' if body.dry_run else 'freed'} {size(report['freed_bytes'])}")
    else:
        session.tell("nothing to prune")


def _confirm(vms: Sequence[dict[str, Any]]) -> None:
    """Ask the person at the terminal.

    Raises:
        BangerError: ``usage`` where nobody can be asked, ``cancelled`` for any answer but yes.
    """
    terminal = Terminal.stderr()
    if not (terminal.interactive and sys.stdin.isatty()):
        message = "deleting VMs needs a confirmation, and there is no terminal to ask on"
        raise BangerError(ErrorKind.USAGE, message, hint="banger vm prune --yes")
    names = ", ".join(printable(vm.get("name") or vm["id"]) for vm in vms)
    terminal.write(f"delete {names} and what is on their disks? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise cancelled("nothing was deleted")
