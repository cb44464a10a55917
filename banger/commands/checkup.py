"""``banger doctor --boot``: its options, and its output while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from banger.checkup.plan import Candidate
from banger.checkup.report import Row
from banger.checkup.run import Checkup, CheckupOptions
from banger.commands.session import CliSession
from banger.config import Config
from banger.core.codec import to_plain
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.core.network_names import NETWORKS
from banger.core.wire.reading import one_of
from banger.render.checkup import machine_text, row_text, summary_text
from banger.render.terminal import Terminal


def check_up(session: CliSession, *, image: str, kernel: str, networks: Sequence[str], reach: str) -> int:
    """Boot temporary VMs and prove that they work; 0 if everything works that should."""
    options = CheckupOptions(
        image,
        kernel,
        [one_of("--network", name, NETWORKS) for name in networks],
        parse_reach(reach) if reach else None,
    )
    shown = _Shown(session)
    try:
        report = Checkup(session.layout, Config.load(session.layout.config_file), session.client, options, shown).run()
    finally:
        shown.progress.close()
    session.show_document(to_plain(report), lambda terminal: summary_text(report, terminal))
    return 0 if report.ok else EXIT_CODES[ErrorKind.UNAVAILABLE]


def parse_reach(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; an IPv6 address stands in brackets."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        message = f'"{text}" is not a host and a port'
        raise BangerError(ErrorKind.USAGE, message, subject=text, hint="write --reach deb.debian.org:443")
    return host, int(port)


class _Shown:
    """A check-up on the terminal: rows on standard output as they end, what runs now on standard error."""

    def __init__(self, session: CliSession) -> None:
        self._session = session
        self._terminal = Terminal.stdout()
        self._live = Terminal.stderr().can_move
        self.progress = session.progress(transient=True)

    def machine(self, candidate: Candidate) -> None:
        self._write(machine_text(candidate, self._terminal))

    def row(self, row: Row) -> None:
        self._write(row_text(row, self._terminal))

    def event(self, event: Mapping[str, Any] | None) -> None:
        if self._live:  # elsewhere every step would be a line beside the rows
            self.progress(event)

    def fetching(self, event: Mapping[str, Any] | None) -> None:
        self.progress(event)

    def tell(self, message: str) -> None:
        self.progress.close()
        self._session.tell(message)

    def _write(self, text: str) -> None:
        self.progress.close()
        if not self._session.json:
            self._terminal.write(text)
