"""Request bodies: what each route takes, as dataclasses that the codec checks and OpenAPI describes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from banger.core import codec
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import NO_SIZES, DefaultSizes, VmSpec

#: No request but a frame stream needs more.
MAX_BODY_BYTES = 1 << 20

T = TypeVar("T")

#: As JSON has it; an even number of backslashes before it are none of its own.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class PullImageBody:
    """``POST /v1/images/pull``. ``reference`` is a catalog name or an OCI reference."""

    reference: str
    name: str = ""
    platform: str = ""
    plain_http: bool = False
    size_mib: int = 0


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

    disk_mib: int


@dataclass(frozen=True, slots=True)
class TerminalBody:
    """The caller's terminal."""

    rows: int = 24
    columns: int = 80
    term: str = "xterm-256color"


@dataclass(frozen=True, slots=True)
class ExecBody:
    """CONFIG of an exec: an empty ``argv`` is a shell, or in a run the image's own command."""

    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: TerminalBody | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunBody:
    """CONFIG of a run: make and start a VM, then exec in it."""

    spec: VmSpec
    name: str = ""
    exec: ExecBody = ExecBody()
    detach: bool = False


async def read_body(request: Request, cls: type[T]) -> T:
    """The request's JSON body as ``cls``; ``usage`` errors name the field."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise BangerError(ErrorKind.USAGE, "the request is too large")
    return decode(bytes(data), cls)


def decode(data: bytes, cls: type[T]) -> T:
    """JSON bytes as ``cls``. No name, path or word of a command holds a NUL: what is made of them ends there."""
    try:
        value: Any = json.loads(data or b"{}")
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        cause = ascii(str(error.object)[max(0, error.start - 20) : error.end + 20])
        raise BangerError(ErrorKind.USAGE, "the request holds text that is not UTF-8", cause=cause) from None
    except (ValueError, RecursionError) as error:
        raise BangerError(ErrorKind.USAGE, "the request is not JSON", cause=str(error)) from None
    if found := _NUL.search(text):
        cause = text[max(0, found.start() - 20) : found.end() + 20]
        raise BangerError(ErrorKind.USAGE, "the request holds a NUL character", cause=cause)
    return codec.from_plain(cls, value)
