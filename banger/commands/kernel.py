"""Kernels: pull, import, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.options import SeveralKernels
from banger.commands.session import Session


def pull(
    ctx: Context, kernel_names: Annotated[list[str], Argument(metavar="NAME...", help="See `banger catalog list`.")]
) -> int:
    """Fetch kernels of the catalog."""
    session: Session = ctx.obj
    return session.each(kernel_names, "POST", lambda _: "/v1/kernels/pull", body=lambda name: {"name": name})


def import_(
    ctx: Context,
    name: Annotated[str, Argument(metavar="NAME", help="What to call it.")],
    kernel_path: Annotated[Path, Argument(metavar="FILE", help="vmlinuz or vmlinux.")],
    modules: Annotated[Path | None, Option(metavar="DIR", help="Its modules: lib/modules/VERSION.")] = None,
    initrd: Annotated[Path | None, Option(metavar="FILE", help="An initrd of its own.")] = None,
    cmdline: Annotated[str, Option(metavar="ARGS", help="Arguments that it wants.")] = "",
) -> None:
    """Take in a kernel from local files."""
    session: Session = ctx.obj
    body = {"name": name, "kernel_path": str(kernel_path.absolute())}
    if modules:
        body["modules_path"] = str(modules.absolute())
    if initrd:
        body["initrd_path"] = str(initrd.absolute())
    if cmdline:
        body["cmdline"] = cmdline
    session.show_results([session.long("POST", "/v1/kernels/import", body=body)])


def delete(ctx: Context, kernels: SeveralKernels) -> int:
    """Delete kernels that no VM uses."""
    session: Session = ctx.obj
    return session.each(kernels, "DELETE", lambda kernel: path_of("kernels", kernel))
