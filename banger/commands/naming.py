"""Checking the typed name of a new VM; an invalid one is answered with a similar valid one."""

from __future__ import annotations

from banger.commands.hints import typed
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind


def check_name(session: CliSession, name: str) -> None:
    """See that ``name`` may name a VM; an empty one is made up later.

    Raises:
        BangerError: ``usage``, with the whole command and a name that is allowed.
    """
    from banger.core.names import VM_NAME_RULE, near_vm_name

    near = near_vm_name(name)
    if near == name:
        return
    words = [_renamed(word, name, near) for word in session.arguments]
    raise BangerError(
        ErrorKind.USAGE, f'"{name}" is not a valid VM name', subject=name, cause=VM_NAME_RULE, hint=typed(words)
    )


def _renamed(word: str, name: str, near: str) -> str:
    return near if word == name else f"--name={near}" if word == f"--name={name}" else word
