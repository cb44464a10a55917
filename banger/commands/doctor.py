"""``banger doctor``."""

from __future__ import annotations

from typer import Context

from banger.commands.session import Session
from banger.core.codec import to_plain
from banger.core.errors import EXIT_CODES, ErrorKind
from banger.doctor import Check, Verdict, diagnose
from banger.render.terminal import Terminal, printable

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}


def doctor(ctx: Context) -> int:
    """Check whether this host can run VMs; say what to do if not."""
    session: Session = ctx.obj
    terminal = Terminal.stdout()
    checks = []
    for check in diagnose(session.layout):
        checks.append(check)
        if not session.json:
            terminal.write(_lines(check, terminal))
    if session.json:
        session.show_document(to_plain(checks), "")
    failed = any(check.verdict is Verdict.FAILED for check in checks)
    return EXIT_CODES[ErrorKind.UNAVAILABLE] if failed else 0


def _lines(check: Check, terminal: Terminal) -> str:
    verdict = terminal.paint(f"{check.verdict.value:<8}", _COLOURS[check.verdict])
    line = f"{verdict} {check.name:<15} {printable(check.detail)}\n"
    if check.remedy and check.verdict is not Verdict.OK:
        line += f"{'':<24} {terminal.paint('hint:', 'cyan')} {printable(check.remedy)}\n"
    return line
