"""The ports for kernel sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.operation import Operation


@dataclass(frozen=True, slots=True)
class KernelRequest:
    """What a kernel pull or import was asked for. One of ``source`` and ``kernel_path`` is set.

    Attributes:
        source: a catalog entry's source such as ``apt:linux-image-cloud-amd64``.
        kernel_path, modules_path, initrd_path: local files of an import, already readable by the daemon.
    """

    source: str = ""
    kernel_path: str = ""
    modules_path: str = ""
    initrd_path: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """What :meth:`KernelSource.build` left in the staging directory: ``vmlinuz``, ``modules.ext4``, ``initrd``."""

    version: str
    source: str
    digest: str
    platform: str
    format: str
    size_bytes: int
    has_modules: bool
    has_initrd: bool
    cmdline: str


class KernelSource(Protocol):
    """A kind of place that kernels come from."""

    def handles(self, request: KernelRequest) -> bool:
        """True if this source understands the request."""
        ...

    def build(self, request: KernelRequest, staging: Path, operation: Operation) -> BuiltKernel:
        """Fill ``staging``, synced."""
        ...
