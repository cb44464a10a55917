"""CRC-32C, the checksum of every ext4 structure, from the library that e2fsck itself uses."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

from banger.posix.programs import not_installed

#: Where every chain of checksums starts.
INITIAL = 0xFFFFFFFF


def crc32c(seed: int, data: bytes) -> int:
    """The checksum of ``data`` going on from ``seed``, without the final inversion, as ext4 chains it."""
    return _library()(seed, data, len(data))


@cache
def _library() -> Callable[[int, bytes, int], int]:
    try:
        function = ctypes.CDLL("libext2fs.so.2").ext2fs_crc32c_le
    except (OSError, AttributeError) as error:
        raise not_installed("libext2fs.so.2") from error
    function.restype = ctypes.c_uint32
    function.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]
    return cast("Callable[[int, bytes, int], int]", function)
