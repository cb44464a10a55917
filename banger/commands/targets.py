"""The objects that a command is applied to, and other small parsing of arguments and streams."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind

#: Bytes of a line that a guest may write before it counts as several.
_LONGEST_LINE = 64 << 10


def select(
    session: CliSession,
    names: Sequence[str] | None,
    labels: Sequence[str] | None,
    states: Collection[str],
    *,
    every: bool,
) -> list[str]:
    """The VMs that a verb was asked for: as they were typed, or the ids of those that ``--all``/``--label`` match.

    Args:
        session: for its client.
        names: typed names.
        labels: typed ``K=V`` filters.
        states: of what is matched, only these are meant; empty for any.
        every: ``--all`` was given.
    """
    chosen_by_filter = every or bool(labels)
    if bool(names) == chosen_by_filter:
        message = "VMs were named and also selected by a filter" if names else "no VM was named"
        raise BangerError(ErrorKind.USAGE, message, hint="name VMs, or use --all or --label K=V")
    if names:
        return list(dict.fromkeys(names))
    if not all(label.partition("=")[0] for label in labels or ()):
        raise BangerError(ErrorKind.USAGE, "a label has no name", hint="write --label KEY=VALUE or --label KEY")
    vms = session.client.get("/v1/vms", {"label": labels})
    ids = [str(vm["id"]) for vm in vms if not states or state_of(vm) in states]
    if not ids:
        session.tell("no VM matches")
    return ids


def state_of(vm: Mapping[str, Any]) -> str:
    """One that is down and about to be started again is as good as starting."""
    return "starting" if (vm.get("restarts") or {}).get("due_at") else str(vm.get("state"))


def lines_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a text that arrives in pieces; the last one may lack its end. One without any comes in parts."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        while len(rest) > _LONGEST_LINE:
            lines.append(rest[:_LONGEST_LINE])
            rest = rest[_LONGEST_LINE:]
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
