"""The image source without a registry: a small Debian or Ubuntu from the host's package mirror.

``mmdebstrap:SUITE[?include=PACKAGE,…]``; the suite ``host`` is the host's own release. mmdebstrap's archive goes
straight into the file system writer. The digest names the inputs (recipe, packages asked for, checksums of the package
lists), so it changes exactly when the archive has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from banger.config import Config
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ImageConfig
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest, ResolvedImage
from banger.layout import Layout
from banger.posix.programs import ProgramError, output_of, require_program, run_program
from banger.rootfs import apt_sources
from banger.rootfs.apt_sources import AptSource
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.mmdebstrap import Mmdebstrap

SCHEME = "mmdebstrap:"
#: Part of the digest: raise it when the recipe below changes what comes out.
_RECIPE = 1
_VARIANT = "minbase"
_PACKAGES = ("ca-certificates", "iproute2", "procps")
#: Half the files of a small Debian, and never read in a disposable machine. dpkg's own path-exclude would take ten
#: seconds longer: mmdebstrap then starts a filter for every single package.
_LEAVE_OUT_DOCS = 'cd "$1/usr/share" && rm -rf man/* info/* locale/* && find doc ! -type d ! -name copyright -delete'
_CONFIG = ImageConfig(
    env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",),
    cmd=("/bin/bash",),
)
_APT_HELPER = "/usr/lib/apt/apt-helper"
_RELEASE_TIMEOUT_S = 60.0
_OS_RELEASE = Path("/etc/os-release")

_SUITE = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{0,99}\Z")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a reference asks for."""

    suite: str
    include: tuple[str, ...] = ()

    @classmethod
    def parse(cls, reference: str) -> Recipe:
        """Read ``mmdebstrap:SUITE[?include=a,b]``; raises ``usage``."""
        suite, _, query = reference.removeprefix(SCHEME).partition("?")
        fields = parse_qs(query, keep_blank_values=True)
        packages = sorted({name for value in fields.pop("include", []) for name in value.split(",") if name})
        sound = _SUITE.match(suite) and not fields and all(_PACKAGE.match(name) for name in packages)
        if not reference.startswith(SCHEME) or not sound:
            raise BangerError(
                ErrorKind.USAGE,
                f'"{reference}" cannot be bootstrapped',
                subject=reference,
                hint="write mmdebstrap:bookworm or mmdebstrap:host?include=curl,git",
            )
        return cls(suite, tuple(packages))

    @property
    def reference(self) -> str:
        """The inverse of :meth:`parse`."""
        return f"{SCHEME}{self.suite}" + (f"?include={','.join(self.include)}" if self.include else "")


@dataclass(frozen=True, slots=True)
class HostRelease:
    """The Debian or Ubuntu this host runs."""

    distribution: str
    codename: str
    architecture: str

    @classmethod
    def read(cls, architecture: str, file: Path = _OS_RELEASE) -> HostRelease:
        """From ``/etc/os-release`` (format: os-release(5)); empty fields where it does not say."""
        try:
            pairs = [line.partition("=") for line in file.read_text(encoding="utf-8").splitlines()]
        except OSError:
            pairs = []
        fields = {key: value.strip("\"'") for key, _, value in pairs}
        return cls(fields.get("ID", ""), fields.get("VERSION_CODENAME", ""), architecture)


@dataclass(frozen=True, slots=True)
class _Plan:
    suite: str
    include: tuple[str, ...]
    sources: tuple[AptSource, ...]
    size_bytes: int


class BootstrapImageSource:
    """Bootstraps images. Stateless; root is not needed where mmdebstrap can do without."""

    def __init__(self, layout: Layout, config: Config) -> None:
        """Create the source; the host is looked at when something is asked for."""
        self._cache = layout.cache
        self._config = config

    def handles(self, request: ImageRequest) -> bool:
        """True for ``mmdebstrap:…``."""
        return request.reference.startswith(SCHEME)

    def resolve(self, request: ImageRequest, operation: Operation) -> ResolvedImage:
        """Choose the sources and fetch their release files: some 100 KiB each."""
        recipe = Recipe.parse(request.reference)
        require_program("mmdebstrap")
        with operation.step("resolve reference"):
            host = HostRelease.read(_dpkg_architecture())
            platform = _check_platform(request, host)
            suite = host.codename if recipe.suite == "host" else recipe.suite
            sources = apt_sources.select(apt_sources.read_sources(), host.distribution, host.codename, suite)
            if not sources:
                raise _unavailable(suite, f"no signed source of {host.distribution or 'this host'} in /etc/apt has it")
            with tempfile.TemporaryDirectory(prefix="release-", dir=self._cache) as directory:
                texts = _fetch_releases(sources, suite, Path(directory), operation.token)
        checksums = [
            [source.uri, source.suite, *apt_sources.index_checksums(text, source.components, host.architecture)]
            for source, text in zip(sources, texts, strict=True)
        ]
        inputs = [_RECIPE, _VARIANT, suite, host.architecture, _PACKAGES, recipe.include, checksums]
        digest = "sha256:" + hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        size_bytes = request.size_bytes or self._config.number("image.size_mib") << 20
        plan = _Plan(suite, recipe.include, tuple(sources), size_bytes)
        return ResolvedImage(Recipe(suite, recipe.include).reference, digest, platform, _CONFIG, plan)

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        """Bootstrap and write ``staging/rootfs.ext4`` from the archive as it comes."""
        plan = resolved.token
        if not isinstance(plan, _Plan):
            raise BangerError(ErrorKind.INTERNAL, "the image was resolved by another source", subject=resolved.source)
        # As root everything stays below the staging directory; the users of an unprivileged bootstrap can't enter it.
        environment = {"TMPDIR": str(staging)} if os.geteuid() == 0 else {}
        rootfs = staging / "rootfs.ext4"
        with Mmdebstrap(_arguments(plan), operation.token, operation.note, environment) as run:
            with operation.step("bootstrap debian"):
                if not run.tar.peek(1):
                    run.finish()
                    operation.token.raise_if_cancelled()
                    raise _failed(plan.suite, run)
            layer = Layer(stream=run.tar)
            try:
                stats = build_rootfs([layer], rootfs, size_bytes=plan.size_bytes, operation=operation)
            except BangerError as error:
                if error.kind is ErrorKind.INVALID and run.finish():
                    raise _failed(plan.suite, run) from error
                raise
            if run.finish():
                rootfs.unlink()
                raise _failed(plan.suite, run)
        return BuiltImage(rootfs, stats.size_bytes, stats.disk_bytes, resolved.config, resolved.digest)


def _arguments(plan: _Plan) -> list[str]:
    return [
        f"--mode={'root' if os.geteuid() == 0 else 'auto'}",
        f"--variant={_VARIANT}",
        f"--include={','.join([*_PACKAGES, *plan.include])}",
        "--format=tar",
        "--skip=output/dev",  # the guest's kernel fills /dev
        "--dpkgopt=force-unsafe-io",
        f"--customize-hook={_LEAVE_OUT_DOCS}",
        plan.suite,
        "-",
        *[source.line() for source in plan.sources],
    ]


def _dpkg_architecture() -> str:
    try:
        return output_of(["dpkg", "--print-architecture"], timeout_s=10).decode(errors="replace").strip()
    except (OSError, BangerError, ProgramError) as error:
        message = "this host has no working dpkg"
        raise BangerError(ErrorKind.UNAVAILABLE, message, subject="dpkg", cause=str(error)) from error


def _check_platform(request: ImageRequest, host: HostRelease) -> str:
    own = "linux/" + {"i386": "386", "armhf": "arm/v7", "ppc64el": "ppc64le"}.get(host.architecture, host.architecture)
    if request.platform in ("", own):
        return own
    raise BangerError(
        ErrorKind.USAGE,
        f'"{request.reference}" is made for this host only, which is {own}',
        subject=request.reference,
        hint=f"banger image pull --platform {request.platform} docker.io/library/debian",
    )


def _fetch_releases(sources: Sequence[AptSource], suite: str, directory: Path, token: CancelToken) -> list[str]:
    """The release files, which tell the state of each archive. Not authenticated: mmdebstrap's apt does that."""
    targets = [(f"{s.uri}/dists/{s.suite}/InRelease", directory / str(i)) for i, s in enumerate(sources)]
    _download([text for uri, target in targets for text in (uri, str(target))], suite, token)
    return [target.read_text(errors="replace") for _, target in targets]


def _download(arguments: Sequence[str], suite: str, token: CancelToken) -> None:
    """Let apt's own helper fetch: it knows the host's proxies and logins."""
    try:
        done = run_program(
            [_APT_HELPER, "-oAPT::Sandbox::User=root", "download-file", *arguments],
            token=token,
            timeout_s=_RELEASE_TIMEOUT_S,
        )
    except OSError as error:
        raise _unavailable(suite, f"cannot run {_APT_HELPER}: {error.strerror}") from error
    except BangerError as error:
        token.raise_if_cancelled()
        in_time = error.kind is not ErrorKind.TIMEOUT
        raise _unavailable(suite, error.message if in_time else "the package mirror did not answer in time") from error
    if done.status:
        lines = done.errors.decode(errors="replace").splitlines()
        said = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
        if said and "404 " in said[0]:
            hint = f"banger image pull docker.io/library/debian:{suite}"
            message = f'the package mirror has no suite "{suite}"'
            raise BangerError(ErrorKind.NOT_FOUND, message, subject=suite, cause=said[0], hint=hint)
        raise _unavailable(suite, "; ".join(said[:2]))


def _failed(suite: str, run: Mmdebstrap) -> BangerError:
    if run.disk_full:
        message = f'no room to bootstrap "{suite}"'
        return BangerError(ErrorKind.EXHAUSTED, message, subject=suite, cause=run.last_words, hint="banger system df")
    if "chroot mode" in run.last_words:
        return _unavailable(suite, run.last_words, hint="apt-get install uidmap")
    return _unavailable(suite, run.last_words)


def _unavailable(suite: str, cause: str, hint: str = "") -> BangerError:
    hint = hint or "banger image pull docker.io/library/debian"
    return BangerError(ErrorKind.UNAVAILABLE, f'cannot bootstrap "{suite}"', subject=suite, cause=cause, hint=hint)
