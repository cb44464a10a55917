"""The catalog: shipped TOML files, overridden by the user's own in ``catalog.d``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.catalog.definitions import SECTIONS, CatalogError, Definition, parse_catalog
from banger.catalog.host import HostFacts
from banger.core.errors import BangerError, ErrorKind
from banger.posix.files import read_regular

_SHIPPED = Path(__file__).parent
_Definitions = Mapping[str, Mapping[str, Definition]]


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


class Catalog:
    """All entries, as they were read last. May be asked from any thread.

    The host is looked at with every question, because a program may be installed in the meantime.
    """

    def __init__(self, place: CatalogPlace, host: HostFacts | None = None) -> None:
        """Read the files; see :meth:`load`."""
        self._place = place
        self._host = host
        self._changing = threading.Lock()
        self._definitions = _read_all(place)

    @classmethod
    def load(cls, layout: CatalogPlace, host: HostFacts | None = None) -> Catalog:
        """Read the shipped files, then the user's in the order of their names; the last one wins.

        Args:
            layout: where the user's files are.
            host: stands in for the real host in tests.

        Raises:
            BangerError: ``usage``, naming the file and the key, for a file that is not as it should be.
        """
        return cls(layout, host)

    def install(self, name: str, text: str, write: Callable[[Path], None]) -> Path:
        """Make ``text`` the user's file ``NAME.toml``, in use at once.

        Nothing is written, and nothing changes, if the catalog as a whole would not be sound with it.

        Args:
            name: of the file, without its ending.
            text: what will be in it.
            write: puts ``text`` into the file that it is given, in one step; called while no one else installs.

        Raises:
            BangerError: as :meth:`load`, and what ``write`` raises.
        """
        file = self._place.catalog_dir / f"{name}.toml"
        with self._changing:
            changed = _read_all(self._place, {file: text})
            write(file)
            self._definitions = changed
        return file

    def image(self, name: str) -> CatalogEntry | None:
        """The image entry of exactly this name."""
        return self._find("images", name)

    def kernel(self, name: str) -> CatalogEntry | None:
        """The kernel entry of exactly this name."""
        return self._find("kernels", name)

    def images(self) -> Sequence[CatalogEntry]:
        """All images for this host, by name."""
        return self.entries()["images"]

    def kernels(self) -> Sequence[CatalogEntry]:
        """All kernels for this host, by name."""
        return self.entries()["kernels"]

    def entries(self) -> Mapping[str, Sequence[CatalogEntry]]:
        """Everything, under ``images`` and ``kernels``."""
        host = self._host or HostFacts.probe()
        return {
            section: [entry for _, definition in sorted(known.items()) if (entry := _on(definition, host)) is not None]
            for section, known in self._definitions.items()
        }

    def _find(self, section: str, name: str) -> CatalogEntry | None:
        definition = self._definitions[section].get(name)
        return _on(definition, self._host or HostFacts.probe()) if definition else None


def _on(definition: Definition, host: HostFacts) -> CatalogEntry | None:
    """What a definition means on a host; ``None`` if the host can't use it."""
    if definition.platform and not host.runs(definition.platform):
        return None
    at_home = not definition.host or (definition.host == host.distribution and host.can_bootstrap)
    source = definition.source if at_home else definition.fallback
    if not source:
        return None
    source = source.replace("{architecture}", host.debian_architecture)
    return CatalogEntry(definition.name, source, definition.summary, definition.origin)


def _read_all(place: CatalogPlace, instead: Mapping[Path, str] | None = None) -> _Definitions:
    """Every file's definitions; ``instead`` gives the text of user files that are not, or not so, on disk."""
    instead = instead or {}
    own = sorted({*place.catalog_dir.glob("*.toml"), *instead})
    files = [(file, "banger") for file in sorted(_SHIPPED.glob("*.toml"))] + [(file, str(file)) for file in own]
    found: dict[str, dict[str, Definition]] = {section: {} for section in SECTIONS}
    for file, origin in files:
        try:
            text = instead[file] if file in instead else read_regular(file).decode()
            definitions = parse_catalog(text, origin)
        except OSError as error:
            message = f'cannot read catalog file "{file}"'
            raise BangerError(
                ErrorKind.DENIED, message, subject=str(file), cause=error.strerror or str(error)
            ) from error
        except CatalogError as error:
            raise _bad(file, error) from None
        except UnicodeDecodeError as error:
            raise _bad(file, CatalogError("", str(error))) from None
        for definition in definitions:
            found[definition.section][definition.name] = definition
    return found


def _bad(file: Path, error: CatalogError) -> BangerError:
    what = f'key "{error.key}" of catalog file "{file}" is wrong' if error.key else f'catalog file "{file}" is not TOML'
    return BangerError(ErrorKind.USAGE, what, subject=error.key or str(file), cause=error.cause, hint=f"edit {file}")
