"""Pins: whether what is here already under a name is what the name itself, or the catalog's entry of it, says."""

from __future__ import annotations

from banger.catalog.catalog import CatalogEntry
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel
from banger.core.pins import pin_of


def check_pin(name: str, entry: CatalogEntry | None, present: Image | Kernel, noun: str) -> None:
    """Raise ``conflict``, naming both digests, if what is here under a name that is pinned is something else.

    Either its own digest is that of the pin, or it came from a source with the same pin, which was checked on the way.
    Any content can be given any name, ``alpine@sha256:…`` too (``image tag``, ``image pull --name``).
    """
    source, whose = (entry.source, f"the catalog ({entry.origin})") if entry else (name, "its name")
    pin = pin_of(source)
    if not pin or pin in (present.digest, pin_of(present.source)):
        return
    raise BangerError(
        ErrorKind.CONFLICT, f'{noun} "{name}" is not the one that is pinned', subject=name,
        cause=f"here is {present.digest} from {present.source}; {whose} pins {pin}",
        hint=f"banger {noun} pull {name}, or name this one by its id: {present.id}",
    )  # fmt: skip
