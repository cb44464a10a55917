"""Releases of Firecracker: the archives that the project publishes, from there or from the user."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from banger.config import Config
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmmRelease
from banger.core.operation import Operation
from banger.core.ports import InstalledRelease, ReleaseRequest
from banger.layout import Layout
from banger.oci.blobs import BlobStore
from banger.oci.pinned_url import PinnedDownloads, PinnedFile, Progress
from banger.releases import programs
from banger.releases.trust import checked_sums, require_trust
from banger.vmm.firecracker import binary, installed, releases

_URLS = ("https://", "http://")
_ARCHIVE = ".archive"
_VERSION_IN_NAME = re.compile(r"firecracker-v(\d+\.\d+\.\d+)-")

#: Asks a program for its version; raises as :func:`banger.vmm.firecracker.binary.inspect`.
Ask = Callable[[Path], binary.Binary]


@dataclass(frozen=True, slots=True)
class _Files:
    """What a request has brought: ``digest`` of the archive (empty for a directory), and of each program."""

    source: str
    digest: str
    sums: Mapping[str, str]


class FirecrackerReleases:
    """Implements :class:`banger.core.ports.VmmReleases`."""

    name = installed.NAME

    def __init__(
        self,
        layout: Layout,
        config: Config,
        blobs: BlobStore | None = None,
        known: Mapping[str, releases.Release] | None = None,
        ask: Ask | None = None,
    ) -> None:
        """Connects to nothing.

        Args:
            layout: where releases and blobs are.
            config: for downloads.
            blobs: the store that all sources share; by default one of its own.
            known: releases whose sums are pinned; by default those that ship with banger.
            ask: stands in for running a program; given only by tests.
        """
        self._layout = layout
        self._downloads = PinnedDownloads(blobs or BlobStore(layout.blobs), config)
        self._architecture = releases.host_architecture()
        self._known = releases.known(self._architecture) if known is None else known
        self._ask: Ask = ask or (lambda path: binary.inspect(path, binary.INSTALLED))

    def installed(self) -> Sequence[InstalledRelease]:
        """All that are here, the newest first."""
        return installed.installed(self._layout)

    def directory(self, version: str) -> Path:
        """``drivers/firecracker/VERSION``."""
        return self._layout.driver_dir(self.name, version)

    def check(self, release: InstalledRelease) -> str:
        """Compare its programs with what was written down when they were installed."""
        return installed.check(release)

    def resolve(self, request: ReleaseRequest) -> str:
        """The version that a request means, or empty if only its files tell."""
        version = request.version.removeprefix("v")
        if version and releases.parse_version(version) is None:
            message = f'"{request.version}" is not a version of Firecracker'
            raise BangerError(ErrorKind.USAGE, message, subject=request.version, hint="write it like 1.16.1")
        _check_source(request.source)
        if version or request.source:
            return version
        if not self._known:
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                f"banger knows no release of Firecracker for {self._architecture}",
                subject=self._architecture,
                hint="banger driver install firecracker --from FILE --sha256 HEX",
            )
        return next(iter(self._known))

    def build(self, request: ReleaseRequest, staging: Path, operation: Operation) -> VmmRelease:
        """Fill ``staging`` with the two programs and a record of them."""
        version, given = self.resolve(request), checked_sums(request.sums)
        if request.source and not request.source.startswith(_URLS):
            files = self._from_host(Path(request.source), staging, operation)
        else:
            url, _, fragment = request.source.partition("#")
            if fragment:
                given = checked_sums([fragment.removeprefix("sha256=")])
            files = self._from_url(url, version, given, staging, operation)
        with operation.step("check"):
            self._check(files, version, given, staging)
            told = self._ask(staging / installed.VMM)
        if told.why_not_jailed or version not in ("", told.text):
            cause = told.why_not_jailed or f"its Firecracker is of version {told.text}"
            message = f'"{files.source}" is not Firecracker {version or told.text}'
            raise BangerError(ErrorKind.INVALID, message, subject=files.source, cause=cause)
        record = VmmRelease(
            name=self.name,
            version=told.text,
            architecture=self._architecture,
            source=files.source,
            digest=files.digest,
            sums=files.sums,
            size_bytes=sum((staging / name).stat().st_size for name in installed.PROGRAMS),
            created_at=clock.now(),
        )
        installed.write_record(record, staging)
        return record

    def _from_url(self, url: str, version: str, given: Sequence[str], staging: Path, operation: Operation) -> _Files:
        url = url or releases.download_url(version, self._architecture)
        digest = self._archive_sum(url, version, given)
        with operation.step("download") as step:
            wanted = PinnedFile(url, f"sha256:{digest}", programs.MOST_ARCHIVE_BYTES, "release")
            archive = self._fetch(wanted, operation, step.update)
        with operation.step("unpack"):
            programs.from_archive(archive, staging, installed.PROGRAMS, self._architecture, operation.token)
        return _Files(url, f"sha256:{digest}", _sums(staging))

    def _fetch(self, wanted: PinnedFile, operation: Operation, progress: Progress) -> Path:
        try:
            return self._downloads.fetch(wanted, operation, progress)
        except BangerError as error:
            if error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.NOT_FOUND) and not error.hint:
                error.hint = "fetch it elsewhere, then: banger driver install firecracker --from FILE"
            raise

    def _from_host(self, path: Path, staging: Path, operation: Operation) -> _Files:
        if os.path.isdir(path):  # noqa: PTH112  # a path that no file can have is no directory, and told below
            with operation.step("copy"):
                programs.from_directory(path, staging, installed.PROGRAMS, self._architecture, operation.token)
            return _Files(str(path), "", _sums(staging))
        copied = staging / _ARCHIVE  # nobody can change it between the look and the deed
        with operation.step("copy"):
            programs.copy_file(path, copied, operation.token)
            digest = programs.sum_of(copied)
        try:
            with operation.step("unpack"):
                programs.from_archive(copied, staging, installed.PROGRAMS, self._architecture, operation.token)
        finally:
            copied.unlink(missing_ok=True)
        return _Files(str(path), f"sha256:{digest}", _sums(staging))

    def _archive_sum(self, url: str, version: str, given: Sequence[str]) -> str:
        """What a download has to hash to: told by the user, or pinned for the version that is asked for or in a URL."""
        if len(given) == 1:
            return given[0]
        named = version or next(iter(_VERSION_IN_NAME.findall(urlsplit(url).path)), "")
        release = self._known.get(named)
        if release is not None and release.archive and not given:
            return release.archive
        what = f"Firecracker {named}" if named else url
        raise BangerError(
            ErrorKind.DENIED,
            f'no SHA-256 of "{what}" is known',
            subject=what,
            cause=f"banger knows those of {', '.join(self._known) or 'no release'}",
            hint=f"add --sha256 HEX, from {url}.sha256.txt",
        )

    def _check(self, files: _Files, version: str, given: Sequence[str], staging: Path) -> None:
        digest = files.digest.removeprefix("sha256:")
        hint = "add --sha256 HEX for the archive, or once for each of the two programs"
        known = {each for one in self._known.values() for each in (one.archive, one.firecracker, one.jailer) if each}
        require_trust(f"Firecracker {version}" if version else files.source, digest, files.sums, given, known, hint)
        for name in installed.PROGRAMS:
            programs.check_program_file(staging / name, self._architecture)


def _check_source(source: str) -> None:
    """Raise ``usage`` for what is neither an address nor the same place for everybody on this host."""
    try:
        good = not source or source.startswith("/") or (source.startswith(_URLS) and bool(urlsplit(source).hostname))
    except ValueError:  # an address in brackets that is none
        good = False
    if not good:
        message = f'"{source}" is neither an absolute path nor an address'
        raise BangerError(ErrorKind.USAGE, message, subject=source, hint="write /PATH or https://HOST/PATH")


def _sums(staging: Path) -> Mapping[str, str]:
    return {name: programs.sum_of(staging / name) for name in installed.PROGRAMS}
