"""The ports for image sources."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.core.models import ImageConfig
from banger.core.operation import Operation
from banger.core.wire.sizes import NO_SIZES, DefaultSizes


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a pull was asked for.

    Attributes:
        reference: an OCI reference, or a catalog entry's own source such as ``mmdebstrap:bookworm``.
        platform: ``os/architecture[/variant]``; empty means this host's.
        plain_http: talk http, not https (loopback registries do so by themselves).
        size_bytes: wanted size of the file system; 0: the setting `image.size_mib`, or what the builder chooses.
    """

    reference: str
    platform: str = ""
    plain_http: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class KernelReference:
    """The kernel that an image was used with: its name there, the digest of its content, and where it can be had.

    Any may be empty. ``source`` is what :class:`KernelRequest` takes, but never a file of some host.
    """

    name: str = ""
    digest: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """Exactly one thing to build: the same digest is the same content.

    ``token`` is the resolver's own, handed back to :meth:`ImageSource.build` and opaque to everybody else.
    """

    source: str
    digest: str
    platform: str
    config: ImageConfig
    token: object = None
    kernel: KernelReference = KernelReference()
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """What :meth:`ImageSource.build` left in the staging directory."""

    rootfs: Path
    size_bytes: int
    disk_bytes: int
    config: ImageConfig
    digest: str


class Leases(Protocol):
    """Keep what is being worked with from being collected."""

    def take(self, holder: str, keys: Iterable[str]) -> None:
        """Hold ``keys`` for ``holder``, an operation's id, until it is over or shows no life for too long."""
        ...


class ImageSource(Protocol):
    """A kind of place that images come from."""

    def handles(self, request: ImageRequest) -> bool:
        """True if this source understands the request's reference."""
        ...

    def resolve(self, request: ImageRequest, operation: Operation) -> ResolvedImage:
        """Find out what the reference means now; cheap, no large transfer."""
        ...

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        """Make ``staging/rootfs.ext4``, e2fsck-clean and synced; touches nothing else but shared blobs."""
        ...
