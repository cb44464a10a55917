"""The installation's ssh key, which is authorized in all its guests."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from banger.core.errors import BangerError, ErrorKind
from banger.posix.files import read_regular, sync_path

_COMMENT = "banger"


def ensure_key(path: Path) -> str:
    """The public line of the key pair at ``path``, made first if it is missing.

    ``path`` is an OpenSSH private key (mode 0600 in a 0700 directory), ``path.pub`` beside it the public line. Two
    callers at once end up with the same pair.

    Raises:
        BangerError: ``denied`` if others may read the private key, ``invalid`` if it is not an ed25519 key.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    line = _public_line(_load(path))
    public = path.with_name(f"{path.name}.pub")
    if not public.exists() or public.read_bytes() != f"{line}\n".encode():
        _write_new(public, f"{line}\n".encode(), 0o644, replace=True)
    return line


def _create(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    with suppress(FileExistsError):  # somebody else was first: theirs counts
        _write_new(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600, replace=False)


def _load(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise BangerError(
            ErrorKind.DENIED, f'others may read the private key "{path}"', subject=str(path), hint=f"chmod 600 {path}"
        )
    try:
        key = load_ssh_private_key(read_regular(path), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path, str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, f"it is a {type(key).__name__}")
    return key


def _not_a_key(path: Path, cause: str) -> BangerError:
    return BangerError(
        ErrorKind.INVALID,
        f'"{path}" is not an unencrypted ed25519 private key',
        subject=str(path),
        cause=cause,
        hint=f"mv {path} {path}.bad; running VMs must be restarted to take the new key",
    )


def _public_line(key: Ed25519PrivateKey) -> str:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line} {_COMMENT}"


def _write_new(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    """Publish ``data`` at ``path`` in one step, synced. Raises ``FileExistsError`` unless ``replace``."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if replace:
            staged.replace(path)
        else:
            os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    sync_path(path.parent)
