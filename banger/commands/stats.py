"""Live figures of running VMs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from typer import Context, Option

from banger.client import path_of
from banger.commands import options
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.render.streams import check_reader
from banger.render.table import render_table
from banger.render.terminal import Terminal
from banger.render.usage import USAGE_COLUMNS, usage

#: Between two looks, in seconds; guests that are asked at the same time.
_INTERVAL_S, _AT_ONCE = 1.0, 16
#: The cursor to the top left, and everything below it cleared.
_HOME = "\x1b[H\x1b[J"
#: Why a VM that was named is not looked at any more.
_GONE = (ErrorKind.NOT_FOUND, ErrorKind.CONFLICT)

_Vm = Mapping[str, Any]


class _Looks:
    """Looks at guests, one after another."""

    def __init__(self, session: CliSession, names: Sequence[str], labels: Sequence[str] | None) -> None:
        self._session = session
        self._names = names
        self._labels = labels
        self._before: dict[str, Mapping[str, Any]] = {}
        self._told: set[tuple[str, ErrorKind]] = set()
        self.errors: list[BangerError] = []

    def take(self) -> list[dict[str, Any]]:
        """A row for each; of a VM that does not tell, with the error. Sets ``errors`` to those of this look."""
        vms = self._vms()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            rows = list(pool.map(self._row, vms))
        self._before = {row["id"]: row for row in rows if "error" not in row}
        self.errors = [row.pop("failure") for row in rows if "failure" in row]
        return rows

    def tell(self) -> None:
        """Say what has gone wrong, each thing once."""
        for error in self.errors:
            if (key := (error.subject, error.kind)) not in self._told:
                self._told.add(key)
                if not self._session.json:
                    self._session.show_error(error)

    def _vms(self) -> Sequence[_Vm]:
        if not self._names:
            vms: Sequence[_Vm] = self._session.client.get("/v1/vms", {"state": "running", "label": self._labels})
            return vms
        return [self._session.client.get(path_of("vms", name)) for name in self._names]

    def _row(self, vm: _Vm) -> dict[str, Any]:
        try:
            facts = self._session.client.get(path_of("vms", vm["id"], "facts"))
        except BangerError as error:
            return {"id": vm["id"], "name": vm["name"], "error": error.to_dict(), "failure": error}
        return usage(vm, facts, self._before.get(vm["id"]))


def stats(
    ctx: Context,
    vms: options.VmArguments = None,
    *,
    label: options.LabelFilter = None,
    no_stream: Annotated[bool, Option("--no-stream", help="Look once, for a second, and exit.")] = False,
) -> int:
    """Show what running VMs use, live."""
    session: CliSession = ctx.obj
    if vms and label:
        message = "VMs were named and also selected by a filter"
        raise BangerError(ErrorKind.USAGE, message, hint="name VMs, or use --label K=V")
    looks = _Looks(session, list(dict.fromkeys(vms or ())), label)
    looks.take()
    while True:
        time.sleep(_INTERVAL_S)
        rows = looks.take()
        _show(session, rows, once=no_stream)
        looks.tell()
        is_over = bool(vms) and len(looks.errors) == len(rows) and all(e.kind in _GONE for e in looks.errors)
        if no_stream or is_over:
            return looks.errors[0].exit_code if looks.errors else 0
        check_reader()


def _show(session: CliSession, rows: Sequence[Mapping[str, Any]], *, once: bool) -> None:
    if once:
        session.show_list(rows, USAGE_COLUMNS)
    elif session.json:
        for row in rows:
            session.show_line(row, "")
    else:
        terminal = Terminal.stdout()
        table = render_table(USAGE_COLUMNS, rows, terminal)
        terminal.write(f"{_HOME}{table}" if terminal.can_move else f"{table}\n")
