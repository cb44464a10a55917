"""A signed kernel tells whether it is what was signed."""

from __future__ import annotations

import hashlib
import random
import struct

import pytest

from banger.kernels.signature import is_as_signed

STATEMENT = bytes.fromhex("060a2b060104018237020104")
HEADER = 0x80
OPTIONAL = HEADER + 24


def signed(content: bytes, digest: str = "sha256", *, magic: int = 0x20B) -> bytes:
    """A PE image with ``content`` and a signature that has its digest, as far as it is looked at."""
    entry = OPTIONAL + {0x20B: 144, 0x10B: 128}[magic]
    image = bytearray(0x200) + content
    image[:2], image[HEADER : HEADER + 4] = b"MZ", b"PE\0\0"
    struct.pack_into("<I", image, 0x3C, HEADER)
    struct.pack_into("<H", image, OPTIONAL, magic)
    struct.pack_into("<I", image, OPTIONAL + 64, 0xC0FFEE)  # the check sum, which is not signed
    left_out = bytes(image[: OPTIONAL + 64] + image[OPTIONAL + 68 : entry] + image[entry + 8 :])
    blob = b"\0" * 8 + STATEMENT + hashlib.new(digest, left_out).digest() + b"certificates"
    struct.pack_into("<II", image, entry, len(image), len(blob))
    return bytes(image) + blob


CONTENT = random.Random(2).randbytes(5000)


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("magic", [0x10B, 0x20B])
def test_signed_image_is_what_was_signed_until_one_bit_of_it_changes(digest: str, magic: int) -> None:
    image = signed(CONTENT, digest, magic=magic)
    assert is_as_signed(image) is True
    for place in (0x210, 0x200 + len(CONTENT) // 2, 0x200 + len(CONTENT) - 1):
        damaged = bytearray(image)
        damaged[place] ^= 1
        assert is_as_signed(bytes(damaged)) is False


def test_signed_image_that_lost_its_end_is_not_what_was_signed() -> None:
    assert is_as_signed(signed(CONTENT)[:-4]) is False


@pytest.mark.parametrize("image", [b"", b"MZ", b"\x7fELF" + bytes(200), b"MZ" + bytes(500), b"\xff" * 300])
def test_what_is_not_signed_is_not_known(image: bytes) -> None:
    assert is_as_signed(image) is None


def test_image_without_a_signature_is_not_known() -> None:
    image = bytearray(signed(CONTENT))
    struct.pack_into("<II", image, OPTIONAL + 144, 0, 0)
    assert is_as_signed(bytes(image)) is None
