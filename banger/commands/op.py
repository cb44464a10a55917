"""Operations: follow and cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer import Context

from banger.client import path_of
from banger.commands.options import Operation, SeveralOperations
from banger.commands.session import CliSession
from banger.render.streams import check_reader


def follow(ctx: Context, operation: Operation) -> None:
    """Follow an operation until it finishes."""
    session: CliSession = ctx.obj
    path = path_of("operations", operation, "events")
    if not session.json:
        session.long("GET", path)
        return

    def print_event(event: Mapping[str, Any] | None) -> None:
        if event is None:
            check_reader()
        else:
            session.show_line(event, "")

    session.client.long("GET", path, on_event=print_event)


def cancel(ctx: Context, operations: SeveralOperations) -> None:
    """Cancel operations."""
    session: CliSession = ctx.obj
    session.show_results([session.client.call("POST", path_of("operations", name, "cancel")) for name in operations])
