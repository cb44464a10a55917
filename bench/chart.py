"""A line chart as SVG text, for what is measured at several sizes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _MARGIN, _LEGEND = 640, 360, 48, 22
_SVG = "http://www.w3.org/2000/svg"
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def line_chart(title: str, xs: Sequence[float], lines: Mapping[str, Sequence[float]]) -> str:
    """Every line over the same ``xs``; the vertical axis begins at 0 and reaches at least 100."""
    top = max(100.0, *(value for line in lines.values() for value in line))
    height = _HEIGHT + _LEGEND * len(lines)
    parts = [
        f'<svg xmlns="{_SVG}" width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_MARGIN}" y="24" font-size="14">{escape(title)}</text>',
    ]
    for share in (0, 25, 50, 75, 100):
        y = _y(share, top)
        parts.append(f'<line x1="{_MARGIN}" y1="{y:.1f}" x2="{_WIDTH - _MARGIN}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{share}</text>')
    for x in xs:
        at = _x(x, xs)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _MARGIN + 18}" text-anchor="middle">{x:g}</text>')
    for number, (name, values) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{_x(x, xs):.1f},{_y(value, top):.1f}" for x, value in zip(xs, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = _HEIGHT + _LEGEND * number
        parts.append(f'<rect x="{_MARGIN}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{_MARGIN + 18}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(x: float, xs: Sequence[float]) -> float:
    low, high = min(xs), max(xs)
    return _MARGIN + (x - low) / ((high - low) or 1) * (_WIDTH - 2 * _MARGIN)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _MARGIN - value / top * (_HEIGHT - 2 * _MARGIN)
