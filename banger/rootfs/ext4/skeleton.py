"""Empty file systems made by mke2fs, which takes care of journal, layout and backups."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import format_size
from banger.rootfs.tools import run_tool

BLOCK_BYTES = 4096
INODE_BYTES = 256
#: Named one by one, so that the image is the same whatever the host's mke2fs.conf and version would choose.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)
#: A fixed creation time (one second after the epoch: 0 means "not set"), so that equal input gives an equal image.
_FIXED_TIME = {"E2FSPROGS_FAKE_TIME": "1"}
_TIMEOUT_S = 120.0
#: What an empty file system takes on the disk at most, before anything is in it; measured.
_EMPTY_BYTES = 5 << 20


def make_empty(
    path: Path,
    size_bytes: int,
    *,
    label: str = "",
    fixed: uuid.UUID | None = None,
    token: CancelToken | None = None,
) -> None:
    """Make ``path``, which must not exist, a sparse file of ``size_bytes`` with an empty ext4 in it.

    Args:
        path: the file to make; it is gone again after any failure.
        size_bytes: cut to whole blocks of 4 KiB.
        label: volume label of at most 16 bytes.
        fixed: UUID of the file system; given one, the file's content depends on the arguments only.
        token: cancels.

    Raises:
        BangerError: ``already_exists``; ``exhausted`` if the host's file system cannot hold such a file; ``invalid``
            if mke2fs refuses the size; ``unavailable`` without mke2fs; ``cancelled``.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise BangerError(ErrorKind.ALREADY_EXISTS, f'"{path}" already exists', subject=str(path)) from error
    except OSError as error:
        raise host_error(error, path, size_bytes) from error
    try:
        os.truncate(descriptor, size_bytes - size_bytes % BLOCK_BYTES)
        _format(path, label, fixed, token)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise host_error(error, path, size_bytes) from error
        raise
    finally:
        os.close(descriptor)


def host_error(error: OSError, path: Path, needed_bytes: int) -> BangerError:
    """What an errno of the host means for somebody who wants an image of about ``needed_bytes`` at ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BangerError(
            ErrorKind.EXHAUSTED,
            f"the disk is full: about {format_size(needed_bytes)} are needed",
            subject=str(path),
            cause=error.strerror or "",
            hint="banger system df",
        )
    if error.errno in (errno.EFBIG, errno.EINVAL):
        return BangerError(
            ErrorKind.EXHAUSTED,
            f"the host's file system cannot hold a file of {format_size(needed_bytes)}",
            subject=str(path),
            cause=error.strerror or "",
        )
    kind = ErrorKind.DENIED if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else ErrorKind.UNAVAILABLE
    return BangerError(kind, f'cannot write "{path}"', subject=str(path), cause=error.strerror or str(error))


def _format(path: Path, label: str, fixed: uuid.UUID | None, token: CancelToken | None) -> None:
    extended = "lazy_itable_init=0,lazy_journal_init=1,assume_storage_prezeroed=1,root_owner=0:0"
    arguments = ["-q", "-F", "-t", "ext4", "-O", _FEATURES, "-b", str(BLOCK_BYTES), "-I", str(INODE_BYTES)]
    arguments += ["-i", "16384", "-m", "0", "-L", label]
    environment = {"MKE2FS_CONFIG": os.devnull}
    if fixed is not None:
        arguments += ["-U", str(fixed)]
        extended += f",hash_seed={uuid.uuid5(fixed, 'hash seed')}"
        environment |= _FIXED_TIME
    code, output = run_tool(
        "mke2fs", [*arguments, "-E", extended, str(path)], token=token, environment=environment, timeout_s=_TIMEOUT_S
    )
    if code != 0 and os.strerror(errno.ENOSPC) in output:
        raise host_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), path, _EMPTY_BYTES)
    if code != 0:
        raise BangerError(ErrorKind.INVALID, "mke2fs refuses to make this file system", subject=str(path), cause=output)
