"""Resolving the typed name of an image or a kernel: a catalog entry, or a source to get it from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from banger.catalog.catalog import Catalog
from banger.core import lookup
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_artifact_name
from banger.oci.reference import Reference

_HUB = "docker.io/library/"
#: A word with one of these is a reference; one without is a catalog name, so that typing errors are not looked up
#: in a public registry where anybody may have registered them.
_REFERENCE_MARKS = frozenset("/:@.")
_BOOTSTRAP_SCHEME = "mmdebstrap:"
_BUNDLE_SCHEME, _BUNDLE_FILE_SCHEME = "bundle:", "bundle-file:"
_URL_SCHEMES = ("https://", "http://")
_SUMMED_URL = re.compile(r"https?://[!-~]+#sha256=[0-9a-fA-F]{64}\Z")
#: Debian policy 5.6.1. What is no package name must not reach apt: it may read it as an option.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """The name an image gets unless the user says otherwise, and where it comes from."""

    name: str
    source: str


def resolve_image(text: str, catalog: Catalog) -> ImageLocation:
    """Tell what ``text`` means.

    Raises:
        BangerError: ``not_found`` for a bare word that the catalog does not have, ``usage`` for what can't be a
            reference.
    """
    entry = catalog.image(text)
    if entry is not None:
        return ImageLocation(entry.name, entry.source)
    if text.startswith(_BUNDLE_SCHEME):
        return ImageLocation(Reference.parse(text.removeprefix(_BUNDLE_SCHEME)).familiar(), text)
    if text.startswith(_BUNDLE_FILE_SCHEME):
        return ImageLocation(PurePosixPath(text).name.partition(".")[0].lower(), text)
    if _REFERENCE_MARKS & set(text):
        return image_source(text)
    if not text:
        raise BangerError(ErrorKind.USAGE, "the image name is empty", hint="banger catalog list")
    raise _image_not_found(text, catalog)


def image_source(text: str) -> ImageLocation:
    """Tell what a source of an image is: ``mmdebstrap:SUITE…`` or a reference. Raises ``usage``."""
    if text.startswith(_BOOTSTRAP_SCHEME):
        return ImageLocation(text.partition("?")[0], text)
    return ImageLocation(Reference.parse(text).familiar(), text)


@dataclass(frozen=True, slots=True)
class KernelLocation:
    """The name a kernel gets unless the user says otherwise, empty if nothing suggests one, and its source."""

    name: str
    source: str


def resolve_kernel(text: str, catalog: Catalog) -> KernelLocation:
    """Tell what ``text`` means: a name of the catalog, or what :func:`kernel_source` takes.

    Raises:
        BangerError: ``not_found`` for a bare word that the catalog does not have, ``usage`` for a malformed source.
    """
    entry = catalog.kernel(text)
    if entry is not None:
        return KernelLocation(entry.name, entry.source)
    if set("/:") & set(text):
        return kernel_source(text)
    check_artifact_name(text, "kernel")
    known = [known.name for known in catalog.kernels()]
    raise lookup.not_found(text, "kernel", known, remedy="banger catalog list")


def kernel_source(text: str) -> KernelLocation:
    """Tell what a source of a kernel is: ``apt:PACKAGE``, ``https://…#sha256=HEX``, ``oci:REFERENCE``, a reference.

    Raises:
        BangerError: ``usage`` for one that is malformed.
    """
    scheme, _, rest = text.partition(":")
    if text.startswith(_URL_SCHEMES):
        if not _SUMMED_URL.match(text):
            url = text.partition("#")[0]
            message, hint = f'"{url}" has no sha256', f"banger kernel pull {url} --sha256 HEX --name NAME"
            cause = "without the 64 digits that sha256sum prints nobody could tell whether the right file arrived"
            raise BangerError(ErrorKind.USAGE, message, subject=url, cause=cause, hint=hint)
        return KernelLocation("", text)
    if scheme == "apt":
        if not _PACKAGE.match(rest):
            message = f'"{rest}" is not the name of a package'
            raise BangerError(ErrorKind.USAGE, message, subject=rest, hint="write apt:linux-image-cloud-amd64")
        return KernelLocation(rest, text)
    reference = rest if scheme == "oci" else text
    return KernelLocation(Reference.parse(reference).familiar(), f"oci:{reference}")


def _image_not_found(word: str, catalog: Catalog) -> BangerError:
    close = lookup.closest(word, [entry.name for entry in catalog.images()])
    on_the_hub = f"{_HUB}{word.lower()}"
    return BangerError(
        ErrorKind.NOT_FOUND,
        f'image "{word}" not found',
        subject=word,
        cause=f'it is not in the catalog; the image of Docker Hub is written "{on_the_hub}"',
        hint=f'did you mean "{close}"?  banger image pull {close}' if close else f"banger image pull {on_the_hub}",
    )
