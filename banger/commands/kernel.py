"""Kernels: pull, import, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.options import ForceArtifactFlag, SeveralKernels
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.kernels import ImportKernelBody, PullKernelBody

_URLS = ("https://", "http://")
#: What is written with one of these says itself where it comes from.
_NOT_IN_CATALOG = frozenset("/:")


def pull(
    ctx: Context,
    kernel_names: Annotated[
        list[str], Argument(metavar="KERNEL...", help="A catalog name, oci:REFERENCE, https://… or apt:PACKAGE.")
    ],
    *,
    name: Annotated[str, Option(metavar="NAME", help="Name to store it under.")] = "",
    sha256: Annotated[str, Option(metavar="HEX", help="Expected SHA-256 of a file from a URL.")] = "",
) -> int:
    """Fetch kernels from the catalog, a registry, a URL or the distribution."""
    session: CliSession = ctx.obj
    if len(kernel_names) > 1 and (name or sha256):
        raise BangerError(ErrorKind.USAGE, "--name and --sha256 are for one kernel at a time")
    if sha256 and not kernel_names[0].startswith(_URLS):
        message = f'--sha256 is for a URL, which "{kernel_names[0]}" is not'
        raise BangerError(
            ErrorKind.USAGE, message, subject=kernel_names[0], hint="registries have digests: NAME@sha256:HEX"
        )

    def body(kernel: str) -> PullKernelBody:
        if not name and not _NOT_IN_CATALOG & set(kernel):
            return PullKernelBody(kernel)
        return PullKernelBody(name, f"{kernel}#sha256={sha256}" if sha256 else kernel)

    return session.each(kernel_names, "POST", lambda _: "/v1/kernels/pull", body=body)


def import_(
    ctx: Context,
    name: Annotated[str, Argument(metavar="NAME", help="Name to store it under.")],
    kernel_path: Annotated[Path | None, Argument(metavar="[FILE]", help="The kernel: vmlinuz or vmlinux.")] = None,
    *,
    kernel: Annotated[Path | None, Option("--kernel", "--vmlinux", metavar="FILE", help="Same as FILE.")] = None,
    modules: Annotated[Path | None, Option(metavar="DIR", help="Its modules: lib/modules/VERSION.")] = None,
    initrd: Annotated[Path | None, Option(metavar="FILE", help="Initrd to boot it with.")] = None,
    cmdline: Annotated[str, Option(metavar="ARGS", help="Kernel command-line arguments that it needs.")] = "",
) -> None:
    """Import a kernel from local files."""
    session: CliSession = ctx.obj
    file = kernel or kernel_path
    if file is None or (kernel and kernel_path):
        message = "name one kernel file" if file else "the kernel file is missing"
        raise BangerError(ErrorKind.USAGE, message, subject=name, hint=f"banger kernel import {name} FILE")
    body = ImportKernelBody(name, str(file.absolute()), _path(modules), _path(initrd), cmdline)
    session.show_results([session.long("POST", "/v1/kernels/import", body=body)])


def _path(file: Path | None) -> str:
    return str(file.absolute()) if file else ""


def delete(ctx: Context, kernels: SeveralKernels, *, force: ForceArtifactFlag = False) -> int:
    """Delete kernels that no VM uses."""
    session: CliSession = ctx.obj
    return session.each(
        kernels, "DELETE", lambda kernel: path_of("kernels", kernel), {"force": True} if force else None
    )
