"""Images: pull, register, promote, tag, commit, delete."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.options import ForceArtifactFlag, PlainHttpFlag, SeveralImages, StoredImage, VmArgument
from banger.commands.session import CliSession
from banger.core.wire.images import CommitBody, PullImageBody, RegisterImageBody, TagImageBody
from banger.core.wire.reading import mebibytes

Reference = Annotated[str, Argument(metavar="REFERENCE", help="docker.io/library/alpine:3, python:3.12, debian, …")]


def pull(
    ctx: Context,
    reference: Reference,
    name: Annotated[str, Option("--name", metavar="NAME", help="Name to store it under.")] = "",
    platform: Annotated[str, Option("--platform", metavar="OS/ARCH", help="Platform, if not this host's.")] = "",
    plain_http: PlainHttpFlag = False,
    size: Annotated[str, Option("--size", metavar="SIZE", help="Size of the file system.")] = "",
) -> None:
    """Fetch an image from a registry or the catalog."""
    session: CliSession = ctx.obj
    body = PullImageBody(reference, name, platform, plain_http, mebibytes(size) if size else 0)
    session.show_results([session.long("POST", "/v1/images/pull", body=body)])


def register(
    ctx: Context,
    *,
    rootfs: Annotated[Path, Option(metavar="FILE", help="An ext4 file system; never written to or deleted.")],
    kernel: Annotated[str, Option(metavar="KERNEL", help="Default kernel of its VMs.")] = "",
    work_seed: Annotated[
        Path | None, Option(metavar="FILE", help="A small ext4 file from which home disks are made.")
    ] = None,
    name: Annotated[
        str, Option(metavar="NAME", help="Its name; by default, the file name without its extension.")
    ] = "",
) -> None:
    """Use an existing ext4 file as an image, in place."""
    session: CliSession = ctx.obj
    seed_path = str(work_seed.absolute()) if work_seed else ""
    body = RegisterImageBody(name or rootfs.stem, str(rootfs.absolute()), kernel, seed_path)
    session.show_results([session.long("POST", "/v1/images/register", body=body)])


def promote(ctx: Context, images: SeveralImages) -> int:
    """Copy registered images into banger's own store."""
    session: CliSession = ctx.obj
    return session.each(images, "POST", lambda image: path_of("images", image, "promote"))


def tag(
    ctx: Context,
    stored_image: StoredImage,
    new_name: Annotated[str, Argument(metavar="NEW", help="The name to add.")],
) -> None:
    """Add a name to an image."""
    session: CliSession = ctx.obj
    session.show_results([session.long("POST", path_of("images", stored_image, "tag"), body=TagImageBody(new_name))])


def commit(
    ctx: Context,
    vm: VmArgument,
    *,
    name: Annotated[str, Option(metavar="NAME", help="Name of the image.")],
    keep: Annotated[
        list[str] | None,
        Option(metavar="PATH", help="Keep a path that identifies the machine, such as /etc/machine-id."),
    ] = None,
) -> None:
    """Create an image from a stopped VM's disk."""
    session: CliSession = ctx.obj
    body = CommitBody(name, tuple(keep or ()))
    session.show_results([session.long("POST", path_of("vms", vm, "commit"), body=body)])


def delete(ctx: Context, images: SeveralImages, *, force: ForceArtifactFlag = False) -> int:
    """Delete images that no VM uses."""
    session: CliSession = ctx.obj
    return session.each(images, "DELETE", lambda image: path_of("images", image), {"force": True} if force else None)
