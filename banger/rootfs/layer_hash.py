"""The digest of a layer's uncompressed archive, computed in parallel with its decompression."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

#: Handed over at once: a thousand times what the handing over costs.
_BATCH_BYTES = 1 << 20
#: How far the hash may lag behind; bounds what is held in memory for it.
_MOST_PENDING = 4


class LayerHash:
    """Hashes in a thread of its own: ``hashlib`` lets go of the interpreter's lock, as the decompressors do."""

    def __init__(self, algorithm: str, pool: ThreadPoolExecutor) -> None:
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._pool = pool
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._pending: deque[Future[None]] = deque()

    def update(self, chunk: bytes) -> None:
        """Take the next bytes, which must not change any more; waits if the hash lags too far behind."""
        self._batch.append(chunk)
        self._batch_bytes += len(chunk)
        if self._batch_bytes >= _BATCH_BYTES:
            self._pending.append(self._pool.submit(self._take, self._batch))
            self._batch, self._batch_bytes = [], 0
            if len(self._pending) > _MOST_PENDING:
                self._pending.popleft().result()

    def digest(self) -> str:
        """``sha256:…`` of all there was; waits for it."""
        for pending in self._pending:
            pending.result()
        self._take(self._batch)
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def _take(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._hash.update(chunk)


@contextmanager
def layer_hash(algorithm: str) -> Iterator[LayerHash]:
    """A hash whose thread, if there was enough to do for one, is gone at the end."""
    with ThreadPoolExecutor(1, thread_name_prefix="layer-hash") as pool:
        yield LayerHash(algorithm, pool)
