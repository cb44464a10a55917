"""Files in and out of a guest, as programs for the shell of its toolbox. Pure.

The scripts travel with each request instead of lying in the toolbox: a VM keeps the toolbox it was started with, and a
daemon that was upgraded meanwhile expects its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePosixPath

from banger.core.errors import BangerError, ErrorKind

_KINDS = frozenset({"directory", "file", "other", "missing"})


@dataclass(frozen=True, slots=True)
class GuestPath:
    """What a path in a guest is.

    Attributes:
        kind: ``directory``, ``file``, ``other`` or ``missing``; of a symbolic link, what it leads to.
        is_link: the path itself is a symbolic link.
        real_path: where the link leads, all links on the way resolved; if nothing is there, where it would be. Empty
            if it is no link.
    """

    kind: str
    is_link: bool = False
    real_path: str = ""


def look(path: str) -> list[str]:
    """Arguments of the tool that tells what ``path`` is, for :func:`seen` to read."""
    return _script("look", _absolute(path))


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
    return _script("receive", _absolute(directory))


def send(path: str) -> list[str]:
    """Arguments of the tool that packs ``path``; one that ends in ``/.`` has the topmost entry ``.``."""
    clean = PurePosixPath(_absolute(path))
    if path.endswith("/.") or not clean.name:
        return _script("send", str(clean), ".")
    return _script("send", str(clean.parent), clean.name)


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise BangerError(ErrorKind.USAGE, f'"{path}" is not an absolute path in the guest', subject=path)
    return path


def _script(name: str, *args: str) -> list[str]:
    return ["sh", "-c", _text(name), name, *args]


@cache
def _text(name: str) -> str:
    return (resources.files("banger.guest") / "data" / name).read_text()
