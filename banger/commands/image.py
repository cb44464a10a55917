"""Images: pull, delete."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.options import SeveralImages
from banger.commands.session import Session
from banger.core.units import MIB, parse_size

Reference = Annotated[str, Argument(metavar="REFERENCE", help="docker.io/library/alpine:3, python:3.12, debian, …")]


def pull(
    ctx: Context,
    reference: Reference,
    name: Annotated[str, Option("--name", metavar="NAME", help="Keep it under this name.")] = "",
    platform: Annotated[str, Option("--platform", metavar="OS/ARCH", help="Another platform than this host's.")] = "",
    plain_http: Annotated[bool, Option("--plain-http", help="Talk http to the registry, not https.")] = False,
    size: Annotated[str, Option("--size", metavar="SIZE", help="Size of the file system.")] = "",
) -> None:
    """Fetch an image from a registry or the catalog."""
    session: Session = ctx.obj
    body: dict[str, object] = {"reference": reference}
    if name:
        body["name"] = name
    if platform:
        body["platform"] = platform
    if plain_http:
        body["plain_http"] = True
    if size:
        body["size_mib"] = parse_size(size, bare=MIB) // MIB
    session.show_results([session.long("POST", "/v1/images/pull", body=body)])


def delete(ctx: Context, images: SeveralImages) -> int:
    """Delete images that no VM uses."""
    session: Session = ctx.obj
    return session.each(images, "DELETE", lambda image: path_of("images", image))
