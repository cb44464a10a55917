"""Parsing field values as users type them. Pure; every function raises ``usage`` for invalid text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import MIB, parse_size, whole_number

#: 4 MiB in bytes, and 4 TiB in MiB.
_SURELY_BYTES = 4 << 20
#: Python refuses to parse very long numbers (4,300 digits); no field needs more than this.
_MOST_DIGITS = 18


def cpu_count(text: str) -> int:
    """A number of virtual CPUs."""
    if re.fullmatch(rf"0*[1-9][0-9]{{0,{_MOST_DIGITS - 1}}}", text):
        return int(text.lstrip("0"))
    cause, whole = "", "2"
    if re.fullmatch(rf"[0-9]{{0,{_MOST_DIGITS}}}\.[0-9]+", text):
        cause, whole = "a VM has whole CPUs", str(math.ceil(float(text)) or 1)
    message = f'"{text}" is not a number of CPUs'
    raise BangerError(ErrorKind.USAGE, message, subject=text, cause=cause, hint=f"write --cpus {whole}")


def mebibytes(text: str) -> int:
    """A size in MiB; a bare number is MiB, unless it can only have been meant as bytes."""
    number = whole_number(text.strip())
    if number is not None and number >= _SURELY_BYTES:
        message = f'"{text}" MiB is more than any host has'
        cause, hint = "a number without a unit is MiB", f"write {number // MIB}M"
        raise BangerError(ErrorKind.USAGE, message, subject=text, cause=cause, hint=hint)
    return parse_size(text, bare=MIB) // MIB


def labels(pairs: Sequence[str]) -> Mapping[str, str]:
    """``K=V`` pairs as a mapping; a bare ``K`` has an empty value."""
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not key:
            raise BangerError(ErrorKind.USAGE, f'"{pair}" is not a label', subject=pair, hint="write --label KEY=VALUE")
        found[key] = value
    return found


def entrypoint(text: str) -> tuple[str, ...]:
    """A program, a JSON list of words (as Podman takes it), or empty for none at all."""
    if not text.strip():
        return ()
    if not text.startswith("["):
        return (text,)
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        message = f'"{text}" is not a list of words'
        raise BangerError(ErrorKind.USAGE, message, subject=text, hint="""write --entrypoint '["sh", "-c"]'""")
    return tuple(words)


def one_of(option: str, value: str, choices: Sequence[str], more: str = "") -> str:
    """``value``, if it is one of ``choices``; the hint of an error names them, and says ``more``."""
    if value not in choices:
        known = ", ".join(choice for choice in choices if choice)
        hint = f"use {known}{more}"
        raise BangerError(ErrorKind.USAGE, f'"{value}" is not a valid value for {option}', subject=value, hint=hint)
    return value
