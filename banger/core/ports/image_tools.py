"""The port for making images from what is here: validate, copy, seed, commit, export, push."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.models import Image, Kernel
from banger.core.operation import Operation


@dataclass(frozen=True, slots=True)
class RootfsFacts:
    """What was found out about a root file system. ``digest`` is of its content, ``sha256:…``."""

    size_bytes: int
    disk_bytes: int
    digest: str


class ImageTools(Protocol):
    """What can be done with root file systems that are here already. Nothing is ever mounted on the host."""

    def validate(self, rootfs: Path, operation: Operation) -> RootfsFacts:
        """Prove that it is a clean ext4 that nobody has attached. Raises ``invalid`` or ``conflict``. Never writes."""
        ...

    def copy(self, source: Path, target: Path, operation: Operation) -> None:
        """Copy a file, sharing blocks where the file system can and keeping holes."""
        ...

    def seed(self, rootfs: Path, target: Path, operation: Operation) -> None:
        """Make a work seed: a small ext4 with the content of the image's ``/root``."""
        ...

    def commit(
        self, rootfs: Path, vm_dir: Path, target: Path, keep: Sequence[str], operation: Operation
    ) -> RootfsFacts:
        """Merge a base and a stopped VM's writable layer into a new root file system.

        Host keys, machine id, authorized keys and shell history are left out but for the paths in ``keep``.
        """
        ...

    def export(self, image: Image, kernel: Kernel | None, target: Path, form: str, operation: Operation) -> None:
        """Write an image to a file: ``bundle``, or ``oci`` for an OCI image that other tools read.

        ``kernel`` is the one that the image names, if it is here.
        """
        ...

    def push(self, image: Image, kernel: Kernel | None, push: PushRequest, operation: Operation) -> str:
        """Upload an image as :meth:`export` writes it; the digest of its manifest."""
        ...

    def push_kernel(self, kernel: Kernel, kernel_dir: Path, push: PushRequest, operation: Operation) -> str:
        """Upload a kernel; the digest of its manifest."""
        ...


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Where an upload goes. ``form`` is ``bundle`` or ``oci`` for an image, and has no meaning for a kernel."""

    reference: str
    form: str = "bundle"
    plain_http: bool = False
