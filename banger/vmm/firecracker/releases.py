"""Firecracker's releases: how versions are written and compared, which checksums are pinned, which are supported."""

from __future__ import annotations

import platform
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

Version = tuple[int, int, int]

_FILE = Path(__file__).with_name("releases.toml")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-[0-9A-Za-z][0-9A-Za-z.]{0,30})?\Z", re.ASCII)
#: The project supports no line longer than this (docs/RELEASE_POLICY.md, "Release support").
_MOST_SUPPORT = timedelta(days=366)
_URL = "https://github.com/firecracker-microvm/firecracker/releases/download"


@dataclass(frozen=True, slots=True)
class Release:
    """A release whose files are known. A sum is 64 hexadecimal digits, or empty where none is known for certain.

    Attributes:
        archive, firecracker, jailer: SHA-256 of the published archive, and of two programs in it.
        sources: where these were found.
    """

    version: str
    architecture: str
    archive: str
    firecracker: str
    jailer: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """All releases ``MAJOR.MINOR.*``, which are supported together."""

    released: date
    supported_until: date
    ended: date | None


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a version still gets fixes: ``words`` for people, ``is_over`` if it surely does not."""

    words: str
    is_over: bool = False


def parse_version(text: str) -> Version | None:
    """``1.12.1`` as numbers, without what is behind a hyphen (``1.17.0-dev``); None for what is no version."""
    found = _VERSION.match(text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def order_of(text: str) -> tuple[Version, bool, str]:
    """Sorts versions as they follow each other; one with a suffix comes before the release itself."""
    return parse_version(text) or (0, 0, 0), "-" not in text, text


def host_architecture() -> str:
    """As in the names of the project's files."""
    return platform.machine()


def known(architecture: str) -> Mapping[str, Release]:
    """Version to release, the newest first."""
    found = sorted(
        (one for one in _read()[0] if one.architecture == architecture), key=lambda one: order_of(one.version)
    )
    return {one.version: one for one in reversed(found)}


def vouched_for(architecture: str) -> frozenset[str]:
    """Every checksum of every known release, whatever it is of."""
    sums = (each for one in known(architecture).values() for each in (one.archive, one.firecracker, one.jailer))
    return frozenset(filter(None, sums))


def download_url(version: str, architecture: str) -> str:
    """Where the project publishes a release."""
    return f"{_URL}/v{version}/firecracker-v{version}-{architecture}.tgz"


def support_of(version: str, today: date) -> Support:
    """What the table says of a version's line."""
    numbers, lines = parse_version(version), _read()[1]
    line = lines.get(numbers[:2]) if numbers else None
    if numbers is None or line is None:
        newer = numbers is not None and numbers[:2] > max(lines)
        return Support("newer than this banger knows" if newer else "not in banger's table of supported releases")
    name = f"{numbers[0]}.{numbers[1]}"
    if line.ended is not None and line.ended <= today:
        return Support(f"{name} has not been supported since {line.ended}", is_over=True)
    if today <= line.supported_until:
        return Support(f"supported at least until {line.supported_until}")
    if today > line.released + _MOST_SUPPORT:
        return Support(f"{name} is older than a year, which is as long as any is supported", is_over=True)
    return Support(f"supported until {line.supported_until} at least; a newer banger knows whether it still is")


@cache
def _read() -> tuple[tuple[Release, ...], Mapping[tuple[int, int], Line]]:
    data: Mapping[str, Any] = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    releases = tuple(Release(**{**one, "sources": tuple(one["sources"])}) for one in data["releases"])
    lines = {}
    for one in data["lines"]:
        major, _, minor = one["line"].partition(".")
        lines[int(major), int(minor)] = Line(one["released"], one["supported_until"], one.get("ended"))
    return releases, lines
