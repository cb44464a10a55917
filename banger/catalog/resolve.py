"""What an image name that somebody typed stands for: a catalog entry, or a reference."""

from __future__ import annotations

from dataclasses import dataclass

from banger.catalog.catalog import Catalog
from banger.core.errors import BangerError, ErrorKind
from banger.core.lookup import closest
from banger.oci.reference import Reference

_HUB = "docker.io/library/"
#: A word with one of these is a reference; one without is a catalog name, so that typing errors are not looked up
#: in a public registry where anybody may have registered them.
_REFERENCE_MARKS = frozenset("/:@.")
_BOOTSTRAP_SCHEME = "mmdebstrap:"


@dataclass(frozen=True, slots=True)
class ImageWish:
    """The name an image gets unless the user says otherwise, and where it comes from."""

    name: str
    source: str


def resolve_image(text: str, catalog: Catalog) -> ImageWish:
    """Tell what ``text`` means.

    Raises:
        BangerError: ``not_found`` for a bare word that the catalog does not have, ``usage`` for what can't be a
            reference.
    """
    entry = catalog.image(text)
    if entry is not None:
        return ImageWish(entry.name, entry.source)
    if text.startswith(_BOOTSTRAP_SCHEME):
        return ImageWish(text.partition("?")[0], text)
    if _REFERENCE_MARKS & set(text):
        return ImageWish(Reference.parse(text).familiar(), text)
    if not text:
        raise BangerError(ErrorKind.USAGE, "the image name is empty", hint="banger catalog list")
    raise _not_found(text, catalog)


def _not_found(word: str, catalog: Catalog) -> BangerError:
    close = closest(word, [entry.name for entry in catalog.images()])
    on_the_hub = f"{_HUB}{word.lower()}"
    return BangerError(
        ErrorKind.NOT_FOUND,
        f'image "{word}" not found',
        subject=word,
        cause=f'it is not in the catalog; the image of Docker Hub is written "{on_the_hub}"',
        hint=f'did you mean "{close}"?  banger image pull {close}' if close else f"banger image pull {on_the_hub}",
    )
