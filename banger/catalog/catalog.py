"""The catalog: shipped TOML files, overridden by the user's own in ``catalog.d``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from banger.catalog.host import HostFacts
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_artifact_name

_SHIPPED = Path(__file__).parent
_NOUNS = {"images": "image", "kernels": "kernel"}
_KEYS = ("source", "summary", "host", "fallback", "platform")


class CatalogPlace(Protocol):
    """Where the user's catalog files are: the layout."""

    @property
    def catalog_dir(self) -> Path:
        """A directory of ``*.toml`` files; it may be absent."""
        ...


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What a short name means on this host. ``origin`` is the file that says so, or ``banger`` for a shipped entry."""

    name: str
    source: str
    summary: str
    origin: str


@dataclass(frozen=True, slots=True)
class _Definition:
    """An entry as it is written, before the host is looked at."""

    name: str
    origin: str
    source: str
    summary: str = ""
    host: str = ""
    fallback: str = ""
    platform: str = ""

    def on(self, host: HostFacts) -> CatalogEntry | None:
        """What it means on a host; ``None`` if the host can't use it."""
        if self.platform and self.platform != host.platform:
            return None
        at_home = not self.host or (self.host == host.distribution and host.can_bootstrap)
        source = self.source if at_home else self.fallback
        if not source:
            return None
        return CatalogEntry(
            self.name, source.replace("{architecture}", host.debian_architecture), self.summary, self.origin
        )


class Catalog:
    """All entries. The host is looked at with every question, because a program may be installed in the meantime."""

    def __init__(self, definitions: Mapping[str, Mapping[str, _Definition]], host: HostFacts | None = None) -> None:
        self._definitions = definitions
        self._host = host

    @classmethod
    def load(cls, layout: CatalogPlace, host: HostFacts | None = None) -> Catalog:
        """Read the shipped files, then the user's in the order of their names; the last one wins.

        Args:
            layout: where the user's files are.
            host: stands in for the real host in tests.

        Raises:
            BangerError: ``usage``, naming the file and the key, for a file that is not as it should be.
        """
        definitions: dict[str, dict[str, _Definition]] = {section: {} for section in _NOUNS}
        shipped = [(file, "banger") for file in sorted(_SHIPPED.glob("*.toml"))]
        own = [(file, str(file)) for file in sorted(layout.catalog_dir.glob("*.toml"))]
        for file, origin in shipped + own:
            for section, definition in _read(file, origin):
                definitions[section][definition.name] = definition
        return cls(definitions, host)

    def image(self, name: str) -> CatalogEntry | None:
        """The image entry of exactly this name."""
        return self._find("images", name)

    def kernel(self, name: str) -> CatalogEntry | None:
        """The kernel entry of exactly this name."""
        return self._find("kernels", name)

    def images(self) -> Sequence[CatalogEntry]:
        """All images for this host, by name."""
        return self._all("images")

    def kernels(self) -> Sequence[CatalogEntry]:
        """All kernels for this host, by name."""
        return self._all("kernels")

    def entries(self) -> Mapping[str, Sequence[CatalogEntry]]:
        """Everything, under ``images`` and ``kernels``."""
        return {section: self._all(section) for section in _NOUNS}

    def _find(self, section: str, name: str) -> CatalogEntry | None:
        definition = self._definitions[section].get(name)
        return definition.on(self._host or HostFacts.probe()) if definition else None

    def _all(self, section: str) -> Sequence[CatalogEntry]:
        host = self._host or HostFacts.probe()
        found = (definition.on(host) for _, definition in sorted(self._definitions[section].items()))
        return [entry for entry in found if entry is not None]


def _read(file: Path, origin: str) -> Iterator[tuple[str, _Definition]]:
    import tomllib  # noqa: PLC0415  # the module is imported where no catalog is ever read

    try:
        data = tomllib.loads(file.read_text())
    except OSError as error:
        message = f'cannot read catalog file "{file}"'
        raise BangerError(ErrorKind.DENIED, message, subject=str(file), cause=str(error)) from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise _bad(file, "", str(error)) from None
    for section, entries in data.items():
        if section not in _NOUNS:
            raise _bad(file, section, f"the sections are [{'.NAME] and ['.join(_NOUNS)}.NAME]")
        if not isinstance(entries, dict):
            raise _bad(file, section, "it is not a table")
        for name, fields in entries.items():
            yield section, _definition(file, origin, f"{section}.{name}", name, fields)


def _definition(file: Path, origin: str, key: str, name: str, fields: Any) -> _Definition:
    noun = _NOUNS[key.partition(".")[0]]
    try:
        check_artifact_name(name, noun)
    except BangerError as error:
        raise _bad(file, key, error.message) from None
    if not isinstance(fields, dict):
        raise _bad(file, key, "it is not a table")
    for field, value in fields.items():
        if field not in _KEYS:
            raise _bad(file, f"{key}.{field}", f"an entry has {', '.join(_KEYS)}")
        if not isinstance(value, str) or not value.isprintable():
            raise _bad(file, f"{key}.{field}", "it is not one line of text")
    if not fields.get("source"):
        raise _bad(file, f"{key}.source", "it is missing")
    return _Definition(name, origin, **fields)


def _bad(file: Path, key: str, cause: str) -> BangerError:
    what = f'key "{key}" of catalog file "{file}" is wrong' if key else f'catalog file "{file}" is not TOML'
    return BangerError(ErrorKind.USAGE, what, subject=key or str(file), cause=cause, hint=f"edit {file}")
