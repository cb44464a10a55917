"""Refreshing a catalog: fetched from a web server or a registry, verified by digest, checked, then installed.

The digest is all that vouches for the content: signatures are not verified.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit

from banger.catalog.catalog import Catalog
from banger.catalog.definitions import CatalogError, Definition, parse_catalog
from banger.catalog.resolve import image_source, kernel_source
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.oci.artifact import digest_of
from banger.oci.artifact_client import Registries
from banger.oci.documents import DocumentError, descriptors, parse_descriptor
from banger.oci.platform import Platform
from banger.oci.reference import Reference, is_digest
from banger.posix.files import sync_path

#: Type of the one layer of a catalog in a registry.
MEDIA_TYPE = "application/vnd.banger.catalog.v1+toml"
#: No catalog needs more.
MAX_BYTES = 1 << 20
_OCI = "oci:"
_URL = re.compile(r"https?://[!-~]+\Z")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
#: How a file begins that may be replaced: any other one is the user's own work.
_MARK = "# Fetched by `banger catalog refresh`, which overwrites it.\n"


@dataclass(frozen=True, slots=True)
class CatalogRequest:
    """Where a catalog comes from, pinned, and what its file is called (without ``.toml``).

    Attributes:
        source: ``https://…``, or ``oci:REFERENCE``.
        digest: ``sha256:…`` of the file behind a URL, or of the manifest in a registry.
    """

    name: str
    source: str
    digest: str

    @classmethod
    def parse(cls, source: str, digest: str = "", name: str = "") -> CatalogRequest:
        """Check what was typed; an empty ``name`` is taken from the source. Raises ``usage``."""
        suggested = ""
        if source.startswith(_OCI):
            reference = Reference.parse(source.removeprefix(_OCI))
            if digest and reference.digest not in ("", digest):
                raise _usage("the reference and --digest name different digests", source)
            digest, suggested = digest or reference.digest, PurePosixPath(reference.repository).name
        elif _URL.match(source) and (parts := _split(source)) is not None:
            suggested = PurePosixPath(parts.path).stem.lower()
        else:
            raise _usage(f'"{source}" is not a catalog source', source, "write https://… or oci:HOST/NAME@sha256:…")
        if not is_digest(digest):
            what = f'"{digest}" is not a digest' if digest else f'catalog "{source}" is not pinned by a digest'
            raise _usage(what, source, "add --digest sha256:HEX, as whoever publishes the catalog states it")
        name = name or suggested
        if not _NAME.match(name):
            raise _usage(f'"{name}" cannot be the name of a catalog', name, "add --name NAME: a-z, 0-9, and . _ -")
        return cls(name, source, digest)

    def header(self) -> str:
        """The comment that the file begins with."""
        return f"{_MARK}# source: {self.source}\n# digest: {self.digest}\n"


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:  # an address in brackets that is none
        return None


@dataclass(frozen=True, slots=True)
class RefreshedCatalog:
    """What a refresh put in place: the file, and the names that it gives a meaning to."""

    name: str
    path: str
    source: str
    digest: str
    images: tuple[str, ...]
    kernels: tuple[str, ...]


def refresh(
    catalog: Catalog, registries: Registries, request: CatalogRequest, operation: Operation
) -> RefreshedCatalog:
    """Fetch a catalog and put it to use.

    Args:
        catalog: gets the file, and answers from it when this returns.
        registries: how to talk to registries; their insecure ones may be asked for URLs without TLS too.
        request: what is fetched.
        operation: its token ends every wait.

    Raises:
        BangerError: ``invalid`` for content of another digest or that is no sound catalog; ``already_exists`` if a file
            of that name was written by hand; ``denied`` for plain http or a directory that can't be written to; as the
            server or the registry says. Then everything is as it was.
    """
    fetch = _from_registry if request.source.startswith(_OCI) else _from_url
    text, definitions = _sound(fetch(registries, request, operation), request)
    operation.token.raise_if_cancelled()
    full = request.header() + text
    path = catalog.install(request.name, full, lambda file: _replace(file, full))
    names = {section: tuple(d.name for d in definitions if d.section == section) for section in ("images", "kernels")}
    return RefreshedCatalog(request.name, str(path), request.source, request.digest, names["images"], names["kernels"])


def _from_url(registries: Registries, request: CatalogRequest, operation: Operation) -> bytes:
    # requests takes a quarter of a second to import: the daemon's start must not wait for it.
    from banger.oci.artifact_url import UrlOrigin  # noqa: PLC0415
    from banger.oci.registry import Timeouts  # noqa: PLC0415

    insecure = registries.config.text("registry.insecure")
    timeouts = Timeouts.patient(registries.config.seconds("registry.stall_timeout_s"))
    origin = UrlOrigin(request.source, operation.token, insecure=insecure, note=operation.note, timeouts=timeouts)

    retrier = origin.retrier()

    def read() -> bytes:
        body, content = origin.open_blob(request.digest, 0, retrier.stall_timer), bytearray()
        try:
            while len(content) <= MAX_BYTES and (chunk := body.read()):
                content += chunk
        finally:
            body.close()
        return bytes(content)

    content = retrier.run(read)
    if len(content) > MAX_BYTES:
        raise _unsound(request, f"it is longer than {MAX_BYTES} bytes")
    if (found := digest_of(content)) != request.digest:
        raise _unsound(request, f"its digest is {found}, not {request.digest}")
    return content


def _from_registry(registries: Registries, request: CatalogRequest, operation: Operation) -> bytes:
    from banger.oci.manifest import find_manifest  # noqa: PLC0415  # as above

    reference = replace(Reference.parse(request.source.removeprefix(_OCI)), digest=request.digest)
    client = registries.reader(reference, operation)
    manifest, _ = find_manifest(client, Platform.host(), "catalog")
    try:
        layers = [parse_descriptor(layer, "its layer") for layer in descriptors(manifest, "layers", 1)]
    except DocumentError as error:
        raise _unsound(request, str(error)) from None
    if [layer.media_type for layer in layers] != [MEDIA_TYPE]:
        raise _unsound(request, f'its layer is not of type "{MEDIA_TYPE}"')
    if layers[0].size > MAX_BYTES:
        raise _unsound(request, f"it is longer than {MAX_BYTES} bytes")
    what = f'the content of catalog "{reference.familiar()}"'
    content = client.get_document(f"blobs/{layers[0].digest}", "*/*", layers[0].size, what).body
    if (found := digest_of(content)) != layers[0].digest:
        raise _unsound(request, f"its content does not match its digest: {found}, not {layers[0].digest}")
    return content


def _sound(content: bytes, request: CatalogRequest) -> tuple[str, Sequence[Definition]]:
    """The text and the entries of a catalog, checked more strictly than a file of the user's own: sources must read."""
    try:
        text = content.decode()
        definitions = parse_catalog(text, request.source)
    except UnicodeDecodeError as error:
        raise _unsound(request, str(error)) from None
    except CatalogError as error:
        raise _unsound(request, str(error)) from None
    for definition in definitions:
        read: Callable[[str], object] = image_source if definition.section == "images" else kernel_source
        for key in ("source", "fallback"):
            source: str = getattr(definition, key)
            try:
                if source:
                    read(source.replace("{architecture}", "amd64"))
            except BangerError as error:
                raise _unsound(request, f"{definition.section}.{definition.name}.{key}: {error.message}") from None
    if not definitions:
        raise _unsound(request, "it has no entries")
    return text, definitions


def _replace(file: Path, text: str) -> None:
    """Write ``file`` in one step: also after a power cut there is the old one or the new one."""
    staged = file.with_name(f".{file.name}.new")  # not *.toml: nobody takes it for a catalog
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_replaceable(file)
        with staged.open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(file)
        sync_path(file.parent)
    except OSError as error:
        with suppress(OSError):
            staged.unlink(missing_ok=True)
        raise BangerError(
            ErrorKind.DENIED, f'cannot write "{file}"', subject=str(file), cause=error.strerror or str(error)
        ) from error


def _check_replaceable(file: Path) -> None:
    if not os.path.lexists(file):
        return
    with file.open(encoding="utf-8", errors="replace") as stream:
        ours = stream.read(len(_MARK)) == _MARK
    if not ours:
        message = f'"{file}" already exists and was not fetched'
        raise BangerError(
            ErrorKind.ALREADY_EXISTS, message, subject=str(file), hint="add --name NAME, or move that file away"
        )


def _usage(message: str, subject: str, hint: str = "") -> BangerError:
    return BangerError(ErrorKind.USAGE, message, subject=subject, hint=hint)


def _unsound(request: CatalogRequest, cause: str) -> BangerError:
    message = f'catalog "{request.source}" cannot be used'
    return BangerError(ErrorKind.INVALID, message, subject=request.source, cause=cause)
