"""The installation's key pair."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from banger.core.errors import BangerError, ErrorKind
from banger.guest.sshkeys import ensure_key


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_ensure_key_missing_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "id_ed25519"
    line = ensure_key(path)
    assert line.startswith("ssh-ed25519 AAAA")
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert path.with_suffix(".pub").read_text() == f"{line}\n"
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_ensure_key_again_keeps_the_key_and_restores_the_public_file(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    line, private = ensure_key(path), path.read_bytes()
    path.with_suffix(".pub").write_bytes(b"\xf7 damaged")
    assert ensure_key(path) == line
    path.with_suffix(".pub").unlink()
    assert ensure_key(path) == line
    assert path.read_bytes() == private
    assert path.with_suffix(".pub").read_text() == f"{line}\n"


def test_ensure_key_many_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "id_ed25519"
    with ThreadPoolExecutor(8) as pool:
        lines = set(pool.map(ensure_key, [path] * 16))
    assert len(lines) == 1
    assert len(list(path.parent.iterdir())) == 2


def test_ensure_key_readable_by_others_is_denied(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    ensure_key(path)
    path.chmod(0o640)
    with pytest.raises(BangerError) as caught:
        ensure_key(path)
    assert caught.value.kind is ErrorKind.DENIED
    assert caught.value.hint == f"chmod 600 {path}"


def ecdsa_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


@pytest.mark.parametrize("content", [b"", b"not a key", ecdsa_key()], ids="empty text ecdsa".split())
def test_ensure_key_file_that_is_no_ed25519_key_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "id_ed25519"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BangerError) as caught:
        ensure_key(path)
    assert caught.value.kind is ErrorKind.INVALID
    assert path.read_bytes() == content
