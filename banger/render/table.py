"""Tables: aligned columns, truncated to the width of a terminal, complete everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from banger.core.plain_text import printable
from banger.render.terminal import Terminal, shorten

_GAP = "  "
_MIN_WIDTH = 6


class Column(NamedTuple):
    """One column: its title, the text of a row's cell, and whether it may be cut on a narrow terminal."""

    title: str
    cell: Callable[[Mapping[str, Any]], str]
    shrinks: bool = False


def render_table(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], terminal: Terminal) -> str:
    """The table with its header, every line ended."""
    ellipsis = "…" if terminal.unicode else "~"
    cells = [[printable(column.cell(row)) or "-" for column in columns] for row in rows]
    widths = [max(len(column.title), *(len(line[i]) for line in cells), 0) for i, column in enumerate(columns)]
    _fit(widths, columns, terminal.width)
    header = terminal.paint(_line([column.title for column in columns], widths, ellipsis), "bold")
    return "".join(f"{line}\n" for line in [header, *(_line(line, widths, ellipsis) for line in cells)])


def _line(cells: Sequence[str], widths: Sequence[int], ellipsis: str) -> str:
    padded = (shorten(cell, width, ellipsis).ljust(width) for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _fit(widths: list[int], columns: Sequence[Column], limit: int | None) -> None:
    """Narrow the widest column that may shrink, one by one, until the line fits or nothing can give any more."""
    while limit is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > limit:
        candidates = [i for i, column in enumerate(columns) if column.shrinks and widths[i] > _MIN_WIDTH]
        if not candidates:
            return
        widths[max(candidates, key=lambda i: widths[i])] -= 1
