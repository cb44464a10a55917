"""Text output of a check-up: a line for every check, with its time, and hints for failed ones."""

from __future__ import annotations

from banger.checkup.plan import Candidate
from banger.checkup.report import Report, Row, Verdict
from banger.core.plain_text import printable
from banger.core.units import format_duration
from banger.render.terminal import Terminal

_COLOURS = {Verdict.OK: "green", Verdict.NOTE: "yellow", Verdict.SKIPPED: "dim", Verdict.FAILED: "red"}
_INDENT = " " * 29


def machine_text(candidate: Candidate, terminal: Terminal) -> str:
    """The headline of a machine, and why it is or is not tried."""
    prospect = candidate.prospect
    if prospect.usable:
        title = f"{prospect.accelerator}, {candidate.driver}, network {candidate.network}"
        return f"{terminal.paint(printable(title), 'bold')}: {printable(prospect.reason)}\n"
    text = f"{terminal.paint(prospect.accelerator, 'bold')}: not usable: {printable(prospect.reason)}\n"
    return text + (f"  {terminal.paint('hint:', 'cyan')} {printable(prospect.hint)}\n" if prospect.hint else "")


def row_text(row: Row, terminal: Terminal) -> str:
    """One check."""
    verdict = terminal.paint(f"{row.verdict.value:<8}", _COLOURS[row.verdict])
    time = format_duration(row.elapsed_s) if row.verdict is not Verdict.SKIPPED else ""
    text = f"{verdict} {row.check:<9} {time:>8}  {printable(row.detail)}\n"
    label = "cause:"
    for line in filter(str.strip, row.cause.splitlines()):
        text += f"{_INDENT}{label} {printable(line)}\n"
        label = " " * len(label)
    if row.hint:
        text += f"{_INDENT}{terminal.paint('hint:', 'cyan')} {printable(row.hint)}\n"
    return text


def summary_text(report: Report, terminal: Terminal) -> str:
    """The last line."""
    rows = [*(row for machine in report.machines for row in machine.rows), *report.host]
    failed = sum(row.verdict is Verdict.FAILED for row in rows)
    took = format_duration(report.elapsed_s)
    if report.ok:
        return terminal.paint("everything works", "green") + f": {len(rows)} checks in {took}\n"
    what = f"{failed} of {len(rows)} checks failed" if failed else "nothing could be tried"
    return f"{terminal.paint(what, 'red')}, in {took}\n"
