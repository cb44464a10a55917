"""Kernels from web servers: ``https://HOST/PATH#sha256=HEX``, a kernel or an archive that holds one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from banger.config import Config
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.core.units import GIB
from banger.kernels import staging
from banger.kernels.artifact_source import FOREIGN_LINKS
from banger.layout import Layout
from banger.oci.artifact_tree import unpack_tree
from banger.oci.blobs import BlobStore
from banger.oci.pinned_url import PinnedDownloads, PinnedFile
from banger.rootfs.ext4.skeleton import host_error

_SCHEMES = ("https://", "http://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")
_LARGEST_FILE = 4 * GIB
_ARCHIVE_MAGICS = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_USTAR = slice(257, 262)

#: Where an archive may have its parts; the first pattern that fits counts. The layouts are banger's own, that of the
#: kernel's ``make tar-pkg``, and that of an unpacked distribution package.
_KERNELS = ("vmlinuz", "bzImage", "vmlinux", "vmlinuz-*", "vmlinux-*", "boot/vmlinuz-*", "boot/vmlinux-*")
_MODULES = ("modules", "lib/modules/*", "usr/lib/modules/*")
_INITRDS = ("initrd", "initrd.img", "initrd-*", "boot/initrd*", "boot/initramfs*")


class UrlKernelSource:
    """Downloads through the blob store: resumed after a break, verified, not fetched again when it is there."""

    def __init__(self, layout: Layout, config: Config, blobs: BlobStore | None = None) -> None:
        """Create the source; connects to nothing.

        Args:
            layout: where the blobs are.
            config: ``registry.insecure`` lists the hosts that may be talked to over plain http.
            blobs: the store that all sources share; by default one of its own.
        """
        self._downloads = PinnedDownloads(blobs or BlobStore(layout.blobs), config)

    def handles(self, request: KernelRequest) -> bool:
        """True for ``https://…`` and ``http://…``."""
        return request.source.startswith(_SCHEMES)

    def build(self, request: KernelRequest, staging_dir: Path, operation: Operation) -> BuiltKernel:
        """Fill ``staging_dir``.

        Raises:
            BangerError: ``usage`` without a sha256, ``denied`` for plain http, ``not_found`` or ``unavailable`` as the
                server says, ``invalid`` for another content or for what is no kernel.
        """
        url, digest = parse_source(request.source)
        with operation.step("download") as step:
            wanted = PinnedFile(url, digest, _LARGEST_FILE, "kernel")
            file = self._downloads.fetch(wanted, operation, step.update)
        with operation.step("unpack"), _host_errors(staging_dir, file):
            if _is_archive(file):
                _unpack(file, staging_dir, operation.token)
            else:
                shutil.copyfile(file, staging_dir / staging.KERNEL)
        found = staging.recognise(staging_dir / staging.KERNEL)
        return staging.finish(staging_dir, found, request.source, request.cmdline, operation)


def parse_source(source: str) -> tuple[str, str]:
    """The URL without its fragment, and ``sha256:…``.

    Raises:
        BangerError: ``usage``, saying how to write it, if the sum is missing or malformed, or the address is none.
    """
    url, mark, fragment = source.partition("#")
    try:
        urlsplit(url)
    except ValueError as error:  # an address in brackets that is none
        message = f'"{url}" is not an address'
        raise BangerError(ErrorKind.USAGE, message, subject=source, cause=str(error)) from None
    key, _, value = fragment.partition("=")
    if key == "sha256" and _SHA256.match(value):
        return url, f"sha256:{value.lower()}"
    message = f'"{source}" has a malformed sha256' if mark else f'"{source}" has no sha256'
    raise BangerError(
        ErrorKind.USAGE,
        message,
        subject=source,
        cause="without it nobody could tell whether the right file arrived",
        hint=f"write {url}#sha256=HEX, with the 64 digits that sha256sum prints",
    )


def _is_archive(file: Path) -> bool:
    with file.open("rb") as source:
        head = source.read(512)
    return head.startswith(_ARCHIVE_MAGICS) or head[_USTAR] == b"ustar"


def _unpack(file: Path, staging_dir: Path, token: CancelToken) -> None:
    unpacked = staging_dir / ".unpacked"
    unpacked.mkdir()
    try:
        with file.open("rb", buffering=0) as archive:
            unpack_tree(archive, unpacked, token, ignored_links=FOREIGN_LINKS)
        _take(unpacked, staging_dir)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _take(unpacked: Path, staging_dir: Path) -> None:
    """Move what a kernel consists of out of the unpacked archive."""
    kernel = _one(unpacked, _KERNELS, "kernel")
    if kernel is None:
        _refuse("the archive has no kernel in it", f"looked for {', '.join(_KERNELS)}")
    modules = _one(unpacked, _MODULES, "module tree", directory=True)
    initrd = _one(unpacked, _INITRDS, "initrd")
    for found, name in ((kernel, staging.KERNEL), (modules, staging.MODULES), (initrd, staging.INITRD)):
        if found is not None:
            found.rename(staging_dir / name)


def _one(root: Path, patterns: Iterable[str], what: str, *, directory: bool = False) -> Path | None:
    for pattern in patterns:
        fitting = (path for path in root.glob(pattern) if not path.is_symlink())
        found = sorted(path for path in fitting if (path.is_dir() if directory else path.is_file()))
        if len(found) > 1:
            _refuse(f"the archive has more than one {what}", ", ".join(path.name for path in found[:5]))
        if found:
            return found[0]
    return None


def _refuse(message: str, cause: str) -> NoReturn:
    raise BangerError(ErrorKind.INVALID, message, cause=cause)


@contextmanager
def _host_errors(staging_dir: Path, file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise host_error(error, staging_dir, 3 * file.stat().st_size) from error
