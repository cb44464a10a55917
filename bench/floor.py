"""The least that any pull must do, with the libraries that banger uses: hash, decompress, write; on two threads.

``python -m bench.floor TARGET BLOB...`` prints the seconds, and after them those without waiting for the disk. Written
means on disk, as a published image is, and what comes out is hashed as well as what goes in, since an image names the
digests of both. Left out, to the disadvantage of banger: the transfer, keeping the blobs, parsing, an ext4 and its
check.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard
from isal import isal_zlib

_READ_BYTES = 256 << 10


def main(arguments: Sequence[str]) -> None:
    """Measure."""
    target, *names = map(Path, arguments)
    blobs = sorted(names, key=lambda blob: -blob.stat().st_size)
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        syncs = sum(pool.map(lambda blob: _process(blob, target / blob.name), blobs))
    elapsed = time.perf_counter() - started
    print(elapsed, elapsed - syncs / 2)


def _process(blob: Path, target: Path) -> float:
    """Do one layer; the seconds that the sync took."""
    digest, diff_id = hashlib.sha256(), hashlib.sha256()
    gzipped = blob.open("rb").read(2) == b"\x1f\x8b"
    inflater = isal_zlib.decompressobj(wbits=31) if gzipped else zstandard.ZstdDecompressor().decompressobj()
    output = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with blob.open("rb", buffering=0) as source:
        while chunk := source.read(_READ_BYTES):
            digest.update(chunk)
            data = inflater.decompress(chunk)
            diff_id.update(data)
            os.write(output, data)
    written = time.perf_counter()
    os.fsync(output)
    synced = time.perf_counter() - written
    os.close(output)
    if digest.hexdigest() != blob.name:
        raise RuntimeError(f"{blob} is damaged")
    return synced


if __name__ == "__main__":
    main(sys.argv[1:])
