"""Requests about images."""

from __future__ import annotations

from dataclasses import dataclass

from banger.core.wire.facts import Facts, described
from banger.core.wire.sizes import DISK_MIB, MOST_DISK_MIB, NO_SIZES, DefaultSizes


@dataclass(frozen=True, slots=True)
class PullImageBody:
    """``POST /v1/images/pull``. ``reference`` is a catalog name or an OCI reference."""

    reference: str
    name: str = ""
    platform: str = ""
    plain_http: bool = False
    size_mib: int = described(
        0,
        Facts(
            "Size of the file system.",
            detail="0: the setting, or what the content needs. An existing image of another size is built again.",
            most=MOST_DISK_MIB,
            most_words=DISK_MIB.most_words,
        ),
    )


@dataclass(frozen=True, slots=True)
class RegisterImageBody:
    """``POST /v1/images/register``: absolute paths on this host; the file stays the user's own."""

    name: str
    rootfs_path: str
    kernel: str = ""
    seed_path: str = ""


@dataclass(frozen=True, slots=True)
class TagImageBody:
    """``POST /v1/images/QUERY/tag``: one more name for the same content."""

    name: str


@dataclass(frozen=True, slots=True)
class ExportImageBody:
    """``POST /v1/images/QUERY/export``: ``form`` is ``bundle`` or ``oci``; ``path`` is absolute and new."""

    path: str
    form: str = "bundle"
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class PushImageBody:
    """``POST /v1/images/QUERY/push``. ``defaults`` are sizes for VMs of the bundle; 0 keeps the image's own."""

    reference: str
    form: str = "bundle"
    plain_http: bool = False
    defaults: DefaultSizes = NO_SIZES


@dataclass(frozen=True, slots=True)
class CommitBody:
    """``POST /v1/vms/QUERY/commit``. ``keep`` names paths that would otherwise be cleaned out."""

    name: str
    keep: tuple[str, ...] = ()
