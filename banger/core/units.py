"""Parsing and formatting sizes, durations and addresses."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from banger.core.errors import BangerError, ErrorKind

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
#: The longest time that anything may last, in seconds: a hundred years. What is longer is no time but a mistake.
LONGEST_S = 100 * 365.25 * 86400
_MOST_BYTES = 1 << 62

#: Larger ones count nothing; Python refuses to read those of more than 4,300 digits.
_WHOLE = re.compile(r"[0-9]{1,18}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE | re.ASCII)
_FACTORS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": TIB}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def whole_number(text: str) -> int | None:
    """The number that ``text`` writes in ASCII digits, or None: ``str.isdigit`` takes more than ``int`` does."""
    return int(text) if _WHOLE.fullmatch(text) else None


def parse_size(text: str, bare: int = 1) -> int:
    """Bytes in ``512``, ``512M``, ``1.5GiB``; a number without a unit counts ``bare`` bytes each."""
    match = _SIZE.match(text.strip())
    if not match:
        raise BangerError(ErrorKind.USAGE, f'"{text}" is not a size', subject=text, hint="write 512M or 2G")
    number, unit = match.groups()
    has_unit = unit or text.strip().lower().endswith("b")
    size = float(number) * (_FACTORS[unit.lower()] if has_unit else bare)
    if size > _MOST_BYTES:
        raise BangerError(
            ErrorKind.USAGE, f'"{text}" is more than any disk holds', subject=text, hint="write 512M or 2G"
        )
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``1h30m``, ``250ms``."""
    stripped = text.strip().lower()
    parts = [(stripped, "s")] if re.fullmatch(r"\d+(\.\d+)?", stripped, re.ASCII) else _DURATION.findall(stripped)
    if not parts or stripped not in (parts[0][0], "".join(number + unit for number, unit in parts)):
        raise BangerError(ErrorKind.USAGE, f'"{text}" is not a duration', subject=text, hint="write 90s, 5m or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > LONGEST_S:
        message = f'"{text}" is longer than a hundred years'
        raise BangerError(ErrorKind.USAGE, message, subject=text, hint="leave it out to set no limit")
    return seconds


def format_size(size_bytes: int, *, spaced: bool = True) -> str:
    """IEC units with at most three digits: ``512 MiB``, ``1.4 GiB``, ``17 B``; to be typed, ``512MiB``."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    digits = 0 if value >= 10 or unit == "B" else 1
    return f"{value:.{digits}f}{' ' if spaced else ''}{unit}"


def format_age(moment: datetime, now: datetime) -> str:
    """The time from ``moment`` to ``now`` in its largest unit: ``12s``, ``3m``, ``5h``, ``2d``."""
    seconds = max(0, int((now - moment) / timedelta(seconds=1)))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def format_duration(seconds: float) -> str:
    """``8 ms``, ``1.24 s``, ``2m 03s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds) // 60}m {int(seconds) % 60:02d}s"
