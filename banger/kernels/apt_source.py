"""Kernels from the distribution's package archive: ``apt:PACKAGE``. Nothing is installed on the host."""

from __future__ import annotations

import shutil
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.kernels import packages, staging

_SCHEME = "apt:"
_IMAGE, _MODULES = "linux-image-", "linux-modules-"

#: How many meta packages may stand between the one that was asked for and the kernel.
_MAX_HOPS = 4


class AptKernelSource:
    """Downloads a kernel package, or the one that a meta package depends on, and takes kernel and modules out of it."""

    def handles(self, request: KernelRequest) -> bool:
        """True for ``apt:…``."""
        return request.source.startswith(_SCHEME)

    def build(self, request: KernelRequest, staging_dir: Path, operation: Operation) -> BuiltKernel:
        """Fill ``staging_dir``.

        Raises:
            BangerError: ``not_found`` for a package that apt does not know, ``unavailable`` without apt or network,
                ``invalid`` if the package has no kernel in it.
        """
        asked = request.source.removeprefix(_SCHEME)
        token = operation.token
        with operation.step(f"resolve {asked}"):
            wanted = resolve(asked, token)
        unpacked = staging_dir / ".unpacked"
        unpacked.mkdir(parents=True)
        try:
            with operation.step(f"download {wanted[0]}"):
                files = packages.download(wanted, unpacked, token)
            with operation.step("unpack"):
                for file in files:
                    packages.unpack(file, unpacked, token)
            _take(unpacked, staging_dir, wanted[0])
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        found = staging.recognise(staging_dir / staging.KERNEL)
        return staging.finish(staging_dir, found, request.source, request.cmdline, operation)


def resolve(package: str, token: CancelToken) -> list[str]:
    """The packages to fetch: the kernel's own first, then those that its modules are split into (Ubuntu).

    Args:
        package: a kernel package, or a meta package that depends on the newest one.
        token: ends the look-ups.
    """
    for _ in range(_MAX_HOPS):
        needs = packages.dependencies(packages.show(package, token))
        images = [name for name in needs if name.startswith(_IMAGE)]
        if not images:
            return [package, *(name for name in needs if name.startswith(_MODULES))]
        package = images[0]
    raise BangerError(ErrorKind.INVALID, f'"{package}" does not lead to a kernel package', subject=package)


def _take(unpacked: Path, staging_dir: Path, package: str) -> None:
    """Move kernel and modules out of the unpacked packages; merged-/usr packages have the modules below ``usr``."""
    kernels = sorted(unpacked.glob("boot/vmlinu[xz]-*"))
    if not kernels:
        raise BangerError(
            ErrorKind.INVALID,
            f'the package "{package}" has no kernel in it',
            subject=package,
            hint="name a linux-image package",
        )
    kernels[0].rename(staging_dir / staging.KERNEL)
    trees = [path for path in unpacked.glob("**/lib/modules/*") if (path / "kernel").is_dir()]
    if trees:
        trees[0].rename(staging_dir / staging.MODULES)
        for config in sorted(unpacked.glob("boot/config-*"))[:1]:  # what `image lint` knows the kernel's features from
            config.rename(staging_dir / staging.MODULES / staging.CONFIG)
