"""The time line of a start: one bar per step on a common time axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from banger.core.plain_text import printable
from banger.core.units import format_duration
from banger.render.terminal import Terminal

_AXIS = 32
_NAME_WIDTH = 28


def render_waterfall(timings: Sequence[Mapping[str, Any]], terminal: Terminal) -> str:
    """The bars, one line per step, in the order in which the steps began."""
    steps = sorted(timings, key=lambda step: float(step["started_s"]))
    ends = [float(step["started_s"]) + float(step.get("duration_s") or 0.0) for step in steps]
    whole = max(ends, default=0.0)
    names = [printable(step["name"])[:_NAME_WIDTH] for step in steps]
    width = max((len(name) for name in names), default=0)
    lines = []
    for step, name, end in zip(steps, names, ends, strict=True):
        bar = _bar(float(step["started_s"]), end, whole, terminal)
        duration = step.get("duration_s")
        took = "unfinished" if duration is None else format_duration(float(duration))
        lines.append(f"  {name.ljust(width)}  {bar}  {took}{'  failed' if step.get('failed') else ''}\n")
    return "".join(lines)


def _bar(start: float, end: float, whole: float, terminal: Terminal) -> str:
    """A bar of at least one character, so that a short step is seen too."""
    ink, paper = ("█", "·") if terminal.unicode else ("#", ".")
    first = min(_AXIS - 1, int(start / whole * _AXIS)) if whole else 0
    last = max(first + 1, min(_AXIS, round(end / whole * _AXIS))) if whole else 1
    return terminal.paint(paper * first, "dim") + ink * (last - first) + terminal.paint(paper * (_AXIS - last), "dim")
