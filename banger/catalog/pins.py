"""Pinned catalog entries: whether what is here already under their name is what they pin."""

from __future__ import annotations

from banger.catalog.catalog import CatalogEntry
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel
from banger.core.pins import pin_of


def check_pin(entry: CatalogEntry | None, present: Image | Kernel, noun: str) -> None:
    """Raise ``conflict``, naming both digests, if what is here under the name of a pinned entry is something else.

    Either its own digest is that of the pin, or it came from a source with the same pin, which was checked on the way.
    """
    pin = pin_of(entry.source) if entry else ""
    if entry is None or not pin or pin in (present.digest, pin_of(present.source)):
        return
    raise BangerError(
        ErrorKind.CONFLICT, f'{noun} "{entry.name}" is not the one that the catalog pins', subject=entry.name,
        cause=f"here is {present.digest} from {present.source}; the catalog ({entry.origin}) pins {pin}",
        hint=f"banger {noun} pull {entry.name}, or name this one by its id: {present.id}",
    )  # fmt: skip
