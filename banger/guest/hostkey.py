"""ssh host keys generated on the host: a guest's identity is known before it boots, so the first check is strict."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from banger.core.ports import ServerKey

_ALGORITHM = b"ssh-ed25519"
#: As ssh-keygen(1) makes them by default.
_RSA_EXPONENT, _RSA_BITS = 65537, 3072

_Private = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_MAKERS: Mapping[str, Callable[[], _Private]] = {
    "ssh_host_ed25519_key": Ed25519PrivateKey.generate,
    "ssh_host_ecdsa_key": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ssh_host_rsa_key": lambda: rsa.generate_private_key(_RSA_EXPONENT, _RSA_BITS),
}


class HostKeyMaker:
    """Implements :class:`banger.core.ports.HostKeys`."""

    def own(self, seed: bytes) -> ServerKey:
        """Of dropbear."""
        return ServerKey(dropbear_key(seed), _public_bytes(seed).hex())

    def openssh(self, name: str) -> ServerKey | None:
        """Of sshd."""
        make = _MAKERS.get(name)
        if make is None:
            return None
        key = make()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        return ServerKey(private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


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
