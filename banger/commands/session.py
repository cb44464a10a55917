"""What all commands share: common options, the client, and output."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from banger.client import Client, LongRequest
from banger.core.errors import BangerError
from banger.core.plain_text import printable, printable_lines
from banger.layout import Layout
from banger.render.errors import error_text
from banger.render.json_text import json_text
from banger.render.progress import Progress
from banger.render.streams import OutputError, discard_output
from banger.render.table import Column, render_table
from banger.render.terminal import Terminal

#: Requests of one command that run at the same time.
_AT_ONCE = 16


class CliSession:
    """One run of ``banger``: made before the command line is parsed, filled in by its common flags."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.debug = False
        self.arguments: tuple[str, ...] = ()

    @cached_property
    def layout(self) -> Layout:
        """The paths of this installation."""
        return Layout.from_environment()

    @cached_property
    def client(self) -> Client:
        """A client that starts the daemon if there is none."""
        return Client(self.layout.socket, start_daemon=self._start_daemon)

    @cached_property
    def running_client(self) -> Client:
        """A client that starts nothing."""
        return Client(self.layout.socket)

    def _start_daemon(self) -> None:
        from banger.client.autostart import start_daemon

        start_daemon(self.layout)

    # -- output ----------------------------------------------------------------------------------------

    def progress(self, *, transient: bool = False) -> Progress:
        """Progress of long work, on standard error."""
        return Progress(Terminal.stderr(), quiet=self.quiet, transient=transient)

    def show_document(self, value: Any, text: Callable[[Terminal], str] | str) -> None:
        """Print ``value`` as JSON if that was asked for, else ``text``; plain text is made harmless for a terminal."""
        terminal = Terminal.stdout()
        if self.json:
            sys.stdout.write(json_text(value, indent=2))
        elif isinstance(text, str):
            sys.stdout.write(printable_lines(text) if terminal.interactive else text)
        else:
            sys.stdout.write(text(terminal))

    def show_list(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], key: str = "id") -> None:
        """Print a list: JSON, ids only (``-q``), or a table."""
        if self.quiet and not self.json:
            sys.stdout.writelines(f"{printable(row[key])}\n" for row in rows)
        else:
            self.show_document(rows, lambda terminal: render_table(columns, rows, terminal))

    def show_results(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Print what actions ended with: one object or a list as JSON, else a name (``-q``: an id) per line."""
        key = "id" if self.quiet else "name"
        names = (item.get(key) or item.get("id") or "" for item in results if "error" not in item)
        text = "".join(f"{printable(name)}\n" for name in names)
        self.show_document(results[0] if len(results) == 1 else results, text)

    def show_line(self, value: Mapping[str, Any], text: str) -> None:
        """Print one element of a stream: an object a line as JSON, else ``text``, made harmless for a terminal."""
        shown = printable(text) if Terminal.stdout().interactive else text
        sys.stdout.write(json_text(value) if self.json else f"{shown}\n")
        sys.stdout.flush()

    def show_error(self, error: BangerError) -> None:
        """Print an error: a JSON object on standard output if that was asked for, else lines on standard error."""
        try:
            sys.stdout.write(json_text({"error": error.to_dict()}, indent=2) if self.json else "")
            sys.stdout.flush()
        except OutputError:
            discard_output()
            sys.stderr.write(error_text(error, Terminal.stderr()))
            return
        if not self.json:
            sys.stderr.write(error_text(error, Terminal.stderr()))

    def tell(self, message: str) -> None:
        """One line for people, on standard error."""
        if not self.quiet:
            sys.stderr.write(f"{printable(message)}\n")

    # -- long requests ---------------------------------------------------------------------------------

    def long(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """A long request with its progress drawn; the result. Ctrl-C hangs up."""
        progress = self.progress()
        try:
            return self.client.long(method, path, query, body, on_event=progress, timeout_s=timeout_s)
        finally:
            progress.close()

    def each(
        self,
        targets: Iterable[str],
        method: str,
        path: Callable[[str], str],
        query: Mapping[str, Any] | None = None,
        body: Callable[[str], Any] = lambda _target: None,
    ) -> int:
        """The same long request for several objects, at once, each reported on its own.

        Returns:
            The exit code of the first failure, in the order of ``targets``; 0 if there was none.
        """
        waiting = deque((target, path(target)) for target in targets)
        under_way: deque[LongRequest] = deque()
        errors: list[BangerError] = []
        results: list[Mapping[str, Any]] = []
        try:
            while waiting or under_way:
                while waiting and len(under_way) < _AT_ONCE:
                    target, place = waiting.popleft()
                    under_way.append(self.client.start(method, place, query, body(target)))
                try:
                    results.append(self._outcome(under_way[0]) or {})
                except BangerError as error:
                    errors.append(error)
                    results.append({"error": error.to_dict()})
                    if not self.json:
                        self.show_error(error)
                under_way.popleft().close()
        finally:
            for request in under_way:
                request.close()
        self.show_results(results)
        return errors[0].exit_code if errors else 0

    def _outcome(self, request: LongRequest) -> Any:
        progress = self.progress()
        try:
            return request.result(progress)
        finally:
            progress.close()
