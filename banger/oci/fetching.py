"""Several blobs at once: bounded, with one sum of progress; the first failure ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.oci.blobs import BlobStore, Origin
from banger.oci.documents import Descriptor


def fetch_all(
    store: BlobStore,
    blobs: Sequence[Descriptor],
    origin: Origin,
    parallel: int,
    progress: Callable[[int, int], None],
) -> list[Path]:
    """Fetch ``blobs`` and return their paths in the same order.

    Args:
        store: where they end up.
        blobs: what is wanted; the same digest may occur twice and is fetched once.
        origin: where from. Its token is cancelled when one blob fails, so that the others stop too.
        parallel: how many transfers run at once, at least one.
        progress: told the bytes present and the bytes wanted; never called from two threads at once.

    Raises:
        BangerError: of the first blob that failed.
    """
    distinct = {blob.digest: blob for blob in blobs}
    store.require_room(distinct.values())
    total = sum(blob.size for blob in distinct.values())
    present = dict.fromkeys(distinct, 0)
    lock = threading.Lock()

    def fetch(blob: Descriptor) -> None:
        def advance(offset: int) -> None:
            with lock:
                present[blob.digest] = offset
                progress(sum(present.values()), total)

        store.fetch(blob, origin, advance)

    with (
        _giving_up(store, distinct.values()),
        ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="oci-fetch") as pool,
    ):
        futures = [pool.submit(fetch, blob) for blob in distinct.values()]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        failed = next((future for future in done if future.exception() is not None), None)
        if failed is not None:
            for future in pending:
                future.cancel()
            if not origin.token.cancelled:
                origin.token.cancel("another blob of the same image could not be fetched")
            failed.result()
    return [store.path(blob.digest) for blob in blobs]


@contextmanager
def _giving_up(store: BlobStore, blobs: Iterable[Descriptor]) -> Iterator[None]:
    """On a full disk leave no partial download of any of ``blobs``: they would only keep it full."""
    try:
        yield
    except BangerError as error:
        if error.kind is ErrorKind.EXHAUSTED:
            for blob in blobs:
                store.give_up(blob)
        raise
