"""ssh host keys generated on the host: a guest's identity is known before it boots, so the first check is strict."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ALGORITHM = b"ssh-ed25519"


def public_key(seed: bytes) -> str:
    """The OpenSSH public key line, ``ssh-ed25519 AAAA…``, of a 32-byte private seed (RFC 8709, section 4)."""
    blob = _string(_ALGORITHM) + _string(_public_bytes(seed))
    return f"{_ALGORITHM.decode()} {base64.b64encode(blob).decode()}"


def dropbear_key(seed: bytes) -> bytes:
    """The contents of dropbear's host key file: the algorithm, then the private seed with the public key after it."""
    return _string(_ALGORITHM) + _string(seed + _public_bytes(seed))


def _public_bytes(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _string(data: bytes) -> bytes:
    """An ssh string (RFC 4251, section 5): a big-endian 32-bit length, then the bytes."""
    return len(data).to_bytes(4, "big") + data
