"""The command that a run starts, assembled from the image and the arguments as Docker does. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from banger.core.models import ImageConfig

#: Programs that are process 1 of a machine or nothing at all.
_INITS = frozenset("init systemd openrc-init runit runit-init s6-svscan".split())
_PLACES = frozenset("/ /bin /sbin /usr/bin /usr/sbin /lib/systemd /usr/lib/systemd".split())


def command_of_run(config: ImageConfig, entrypoint: Sequence[str] | None, arguments: Sequence[str]) -> tuple[str, ...]:
    """The command of ``banger run IMAGE ARGUMENTS...``; empty means a shell.

    Arguments stand in place of the image's Cmd. A given entrypoint stands in place of the image's, and the image's Cmd
    is not meant for it. What the image says is left out where it names an init: the guest has one already.

    Args:
        config: of the image.
        entrypoint: given by the user; ``None`` for the image's own.
        arguments: as typed.
    """
    if entrypoint is not None:
        return (*entrypoint, *arguments)
    own = () if _is_init(config.entrypoint) else _words(config.entrypoint)
    if arguments:
        return (*own, *arguments)
    return () if _is_init(config.cmd) or _is_init(config.entrypoint) else (*own, *_words(config.cmd))


def _words(command: Sequence[str]) -> tuple[str, ...]:
    """A command of an image; one empty word is how a Dockerfile clears an entrypoint."""
    return () if tuple(command) == ("",) else tuple(command)


def _is_init(command: Sequence[str]) -> bool:
    """True for ``/sbin/init`` and its like, also as the last word of a script that prepares something for it."""
    return any(_names_init(word) for word in (*command[:1], *command[-1:]))


def _names_init(word: str) -> bool:
    path = PurePosixPath(word)
    return path.name in _INITS and str(path.parent) in _PLACES
