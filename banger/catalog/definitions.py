"""Parsing a catalog file, independent of the host: TOML with a table per entry, every key checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from banger.core.errors import BangerError
from banger.core.names import check_artifact_name

#: Sections of a file, and what one of their entries is called.
SECTIONS = {"images": "image", "kernels": "kernel"}
_KEYS = ("source", "summary", "host", "fallback", "platform")


class CatalogError(ValueError):
    """What is wrong with a catalog. ``key`` says where, dotted; it is empty if the whole is no TOML."""

    def __init__(self, key: str, cause: str) -> None:
        super().__init__(f"{key}: {cause}" if key else cause)
        self.key = key
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Definition:
    """An entry as it is written.

    Attributes:
        section: ``images`` or ``kernels``.
        origin: which file says so.
        source: what the name means; with ``host``, only there.
        host: a distribution's ``ID`` of os-release(5), or empty for all.
        fallback: what the name means on other hosts, or empty.
        platform: ``linux/amd64`` for an entry that other platforms do not have.
    """

    section: str
    name: str
    origin: str
    source: str
    summary: str = ""
    host: str = ""
    fallback: str = ""
    platform: str = ""


def parse_catalog(text: str, origin: str) -> Sequence[Definition]:
    """Read a whole catalog. Raises :class:`CatalogError`."""
    import tomllib  # noqa: PLC0415  # the module is imported where no catalog is ever read

    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise CatalogError("", str(error)) from None
    return list(_definitions(data, origin))


def _definitions(data: dict[str, Any], origin: str) -> Iterator[Definition]:
    for section, entries in data.items():
        if section not in SECTIONS:
            raise CatalogError(section, f"the sections are [{'.NAME] and ['.join(SECTIONS)}.NAME]")
        if not isinstance(entries, dict):
            raise CatalogError(section, "it is not a table")
        for name, fields in entries.items():
            yield _definition(section, name, origin, fields)


def _definition(section: str, name: str, origin: str, fields: Any) -> Definition:
    key = f"{section}.{name}"
    try:
        check_artifact_name(name, SECTIONS[section])
    except BangerError as error:
        raise CatalogError(key, error.message) from None
    if not isinstance(fields, dict):
        raise CatalogError(key, "it is not a table")
    for field, value in fields.items():
        if field not in _KEYS:
            raise CatalogError(f"{key}.{field}", f"an entry has {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.isprintable():
            raise CatalogError(f"{key}.{field}", "it is not one line of text")
    if not fields.get("source"):
        raise CatalogError(f"{key}.source", "it is missing")
    return Definition(section, name, origin, **fields)
