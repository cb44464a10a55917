"""Copying files into and out of a guest, as scripts for the shell of its toolbox. Pure.

The scripts travel with each request instead of lying in the toolbox: a VM keeps the toolbox it was started with, and a
daemon that was upgraded meanwhile expects its own.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import PurePosixPath

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_guest_path
from banger.core.ports import GuestPath

_KINDS = frozenset({"directory", "file", "other", "missing"})


def look(path: str) -> list[str]:
    """Arguments of the tool that tells what ``path`` is, for :func:`seen` to read."""
    return _script("look", check_guest_path(path))


def seen(output: bytes) -> GuestPath:
    """What :func:`look` printed. Raises ``unavailable`` if that cannot be."""
    kind, _, rest = output.decode(errors="replace").partition("\n")
    if kind not in _KINDS:
        message = "the guest does not tell what a path is"
        raise BangerError(ErrorKind.UNAVAILABLE, message, cause=output[:200].decode(errors="replace"))
    link, _, real_path = rest.partition("\n")
    return GuestPath(kind, link == "link", real_path)


def receive(directory: str) -> list[str]:
    """Arguments of the tool that unpacks a tar archive (ustar or GNU) and ends once it is on the guest's disk."""
    return _script("receive", check_guest_path(directory))


def send(path: str) -> list[str]:
    """Arguments of the tool that packs ``path``; one that ends in ``/.`` has the topmost entry ``.``."""
    clean = PurePosixPath(check_guest_path(path))
    if path.endswith("/.") or not clean.name:
        return _script("send", str(clean), ".")
    return _script("send", str(clean.parent), clean.name)


def _script(name: str, *args: str) -> list[str]:
    return ["sh", "-c", _text(name), name, *args]


@cache
def _text(name: str) -> str:
    return (resources.files("banger.guest") / "data" / name).read_text()
