"""Progress on standard error: one line per step with its time, and a bar where an amount is known.

On a terminal the running steps are redrawn in place; elsewhere every finished step is one plain line. ``transient``
progress (in front of a guest's output) leaves no trace on a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from banger.core.plain_text import printable
from banger.core.units import format_duration, format_size
from banger.render.terminal import Terminal, shorten

_BAR_WIDTH = 20


class _Running:
    """A step that has begun: enough to draw its amount, its rate and its clock."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.began = now
        self.done = 0
        self.total: int | None = None
        self.unit = ""
        self.note = ""
        self._first: tuple[float, int] | None = None

    def update(self, event: Mapping[str, Any], now: float) -> None:
        self.done, self.total, self.unit = int(event.get("done") or 0), event.get("total"), event.get("unit") or ""
        self._first = self._first or (now, self.done)

    def rate(self, now: float) -> float:
        """Units a second since the first report: what a resumed download already had does not count."""
        if self._first is None or now <= self._first[0]:
            return 0.0
        return (self.done - self._first[1]) / (now - self._first[0])


class Progress:
    """Draws the events of an operation. Call it with each event, and with ``None`` to keep the clocks running."""

    def __init__(
        self,
        terminal: Terminal,
        *,
        quiet: bool = False,
        transient: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw on ``terminal``; ``quiet`` draws nothing at all."""
        self._terminal = terminal
        self._quiet = quiet
        self._live = terminal.can_move
        self._transient = transient and self._live
        self._clock = clock
        self._running: dict[str, _Running] = {}
        self._drawn = 0

    def __call__(self, event: Mapping[str, Any] | None) -> None:
        """Take an event in its JSON form."""
        if self._quiet:
            return
        if event is not None:
            self._take(event)
        if self._live:
            self._redraw("")

    def close(self) -> None:
        """Remove what is drawn in place. Idempotent; call it before anything else is written."""
        if self._drawn:
            self._terminal.write(self._erasure())
            self._drawn = 0
        self._running.clear()

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, step = event.get("kind"), printable(event.get("step") or "")
        if kind == "step_started":
            self._running[step] = _Running(step, self._clock())
        elif kind == "progress" and step in self._running:
            self._running[step].update(event, self._clock())
        elif kind == "step_finished":
            self._running.pop(step, None)
            if not self._transient:
                self._print(self._finished(step, event))
        elif kind == "note":
            self._take_note(printable(event.get("message") or ""))

    def _take_note(self, note: str) -> None:
        """On a terminal what a running step says stands beside it, until it says something else."""
        if self._live and self._running:
            next(reversed(self._running.values())).note = note
        else:
            self._print(f"  {note}")

    def _print(self, line: str) -> None:
        """Write a line that stays, above what is redrawn."""
        if self._live:
            self._redraw(line + "\n")
        else:
            self._terminal.write(line + "\n")

    def _finished(self, step: str, event: Mapping[str, Any]) -> str:
        failed = event.get("message") == "failed"
        mark = "" if not self._live else self._mark(failed=failed) + " "
        amount = _amount(int(event.get("done") or 0), None, event.get("unit") or "")
        words = [step, "failed" if failed else amount, format_duration(float(event.get("elapsed_s") or 0.0))]
        return f"  {mark}{'  '.join(word for word in words if word)}"

    def _mark(self, *, failed: bool) -> str:
        good, bad = ("✓", "✗") if self._terminal.unicode else ("+", "x")
        return self._terminal.paint(bad, "red") if failed else self._terminal.paint(good, "green")

    def _redraw(self, above: str) -> None:
        now = self._clock()
        width = (self._terminal.width or 80) - 1
        lines = [shorten(self._line(step, now), width) for step in self._running.values()]
        self._terminal.write(self._erasure() + above + "".join(f"{line}\n" for line in lines))
        self._drawn = len(lines)

    def _erasure(self) -> str:
        return f"\r\x1b[{self._drawn}A\x1b[J" if self._drawn else ""

    def _line(self, step: _Running, now: float) -> str:
        words = [f"  {'…' if self._terminal.unicode else '-'} {step.name}"]
        if step.total:
            words.append(self._bar(step.done / step.total))
        words.append(_amount(step.done, step.total, step.unit))
        if step.unit == "bytes" and step.rate(now) > 0:
            words.append(f"{format_size(int(step.rate(now)))}/s")
        words += [f"{now - step.began:.1f} s", step.note]
        return "  ".join(word for word in words if word)

    def _bar(self, fraction: float) -> str:
        full = int(max(0.0, min(1.0, fraction)) * _BAR_WIDTH)
        ink, paper = ("█", "░") if self._terminal.unicode else ("#", ".")
        return ink * full + paper * (_BAR_WIDTH - full)


def _amount(done: int, total: int | None, unit: str) -> str:
    if not done and not total:
        return ""
    if unit == "bytes":
        return f"{format_size(done)} / {format_size(total)}" if total else format_size(done)
    return f"{done}/{total} {unit}".rstrip() if total else f"{done} {unit}".rstrip()
