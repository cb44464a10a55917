"""Host keys against the test vectors of RFC 8032 and the formats' descriptions."""

from __future__ import annotations

import base64

import pytest

from banger.guest.hostkey import dropbear_key, public_key

# RFC 8032, section 7.1, test 1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_public_key_is_that_of_the_seed() -> None:
    algorithm, blob = public_key(SEED).split()
    assert algorithm == "ssh-ed25519"
    assert base64.b64decode(blob) == b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + PUBLIC


def test_dropbear_key_holds_seed_and_public_key() -> None:
    assert dropbear_key(SEED) == b"\0\0\0\x0bssh-ed25519\0\0\0\x40" + SEED + PUBLIC


@pytest.mark.parametrize("size", [0, 31, 33])
def test_seed_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32"):
        public_key(bytes(size))
