"""What requests carry: the bodies of the HTTP API, and the configurations that frame streams begin with."""

from __future__ import annotations

from dataclasses import dataclass, field

from banger.core.models import NO_SIZES, DefaultSizes
from banger.core.units import LONGEST_S
from banger.core.wire.facts import FACTS, Facts, described, facts_of
from banger.core.wire.vm_spec import MOST_DISK_MIB, VmSpec

#: Of a terminal, in each direction; the kernel has 16 bits for it (ioctl_tty(2)).
_MOST_CELLS = (1 << 16) - 1


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


@dataclass(frozen=True, slots=True)
class PruneBody:
    """``POST /v1/system/prune``."""

    nouns: tuple[str, ...] = ("image", "kernel", "evidence")
    unused: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PullKernelBody:
    """``POST /v1/kernels/pull``: the name of a catalog entry; or a source, and the name to keep it under."""

    name: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class RefreshCatalogBody:
    """``POST /v1/catalog/refresh``: ``https://…`` or ``oci:REFERENCE``, pinned by ``digest`` or by the reference."""

    source: str
    digest: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ImportKernelBody:
    """``POST /v1/kernels/import``: absolute paths on this host."""

    name: str
    kernel_path: str
    modules_path: str = ""
    initrd_path: str = ""
    cmdline: str = ""


@dataclass(frozen=True, slots=True)
class CreateVmBody:
    """``POST /v1/vms``. An empty ``name`` is made up."""

    spec: VmSpec
    name: str = ""
    start: bool = False


@dataclass(frozen=True, slots=True)
class GrowBody:
    """``POST /v1/vms/QUERY/grow``: the disk's new size."""

    disk_mib: int = field(metadata={FACTS: facts_of(VmSpec)["disk_mib"]})


@dataclass(frozen=True, slots=True)
class TerminalConfig:
    """The caller's terminal."""

    rows: int = described(24, Facts("Lines.", most=_MOST_CELLS))
    columns: int = described(80, Facts("Characters of a line.", most=_MOST_CELLS))
    term: str = "xterm-256color"


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """CONFIG of an exec: an empty ``argv`` is a shell, or in a run the image's own command."""

    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: TerminalConfig | None = None
    timeout_s: float | None = described(
        None, Facts("Terminate the command after this time.", detail="Seconds; null: never.", most=LONGEST_S)
    )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """CONFIG of a run: make and start a VM, then exec in it."""

    spec: VmSpec
    name: str = ""
    exec: ExecConfig = ExecConfig()
    detach: bool = False


@dataclass(frozen=True, slots=True)
class CopyConfig:
    """CONFIG of a copy into or out of a guest: nothing but what the query says."""
