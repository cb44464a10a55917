"""Fetching several blobs at once: bounded, with total progress; the first failure ends the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.oci.arrival import Arrival
from banger.oci.blobs import BlobStore, Origin
from banger.oci.documents import Descriptor

Progress = Callable[[int, int], None]


class Fetch:
    """The blobs of one image, each of which can be read while it arrives.

    Attributes:
        arrivals: by digest.
        failure: of the first blob that failed; set before any reader hears of it.
    """

    def __init__(self, store: BlobStore, blobs: Sequence[Descriptor], origin: Origin, parallel: int) -> None:
        """Starts nothing yet.

        Args:
            store: where they end up.
            blobs: what is wanted; the same digest may occur twice and is fetched once.
            origin: where from. Its token is cancelled when one blob fails, so that the others stop too.
            parallel: how many transfers run at once, at least one.
        """
        self._store = store
        self._blobs = {blob.digest: blob for blob in blobs}
        self._origin = origin
        self._parallel = max(1, parallel)
        self._lock = threading.Lock()
        self.arrivals = {digest: Arrival(blob.size) for digest, blob in self._blobs.items()}
        self.failure: BaseException | None = None

    def run(self, progress: Progress) -> None:
        """Fetch everything.

        Args:
            progress: told the bytes present and the bytes wanted; never called from two threads at once.

        Raises:
            BangerError: of the first blob that failed.
        """
        try:
            self._store.require_room(self._blobs.values())
            self._transfer(progress)
        except BaseException as error:
            self._give_up(error)
            self._make_room(error)
            raise

    @contextmanager
    def alongside(self, operation: Operation, step_name: str) -> Iterator[None]:
        """Fetch in a thread while the body runs; leave once both are done, or with what went wrong first.

        A body that fails stops the transfers; transfers that fail end the body through what it reads.
        """
        begun = threading.Event()

        def run() -> None:
            try:
                with operation.step(step_name) as step:
                    begun.set()
                    self.run(step.update)
            except BaseException as error:
                self._give_up(error)
                raise
            finally:
                begun.set()

        with ThreadPoolExecutor(1, thread_name_prefix="oci-fetching") as pool:
            fetched = pool.submit(run)
            begun.wait()
            try:
                yield
            except BaseException as error:
                self._stop("the image is not built any more")
                wait([fetched])
                self._make_room(error)
                operation.token.raise_if_cancelled()
                raise
            fetched.result()

    def _transfer(self, progress: Progress) -> None:
        total = sum(blob.size for blob in self._blobs.values())
        present = dict.fromkeys(self._blobs, 0)

        def fetch(blob: Descriptor) -> None:
            def advance(offset: int) -> None:
                with self._lock:
                    present[blob.digest] = offset
                    progress(sum(present.values()), total)

            arrival = self.arrivals[blob.digest]
            try:
                arrival.verified(self._fetch(blob, advance, arrival))
            except BaseException as error:
                self._give_up(error)
                raise

        # The largest come first: nothing is as bad for the total as beginning with one of them last.
        ordered = sorted(self._blobs.values(), key=lambda blob: -blob.size)
        with ThreadPoolExecutor(max_workers=self._parallel, thread_name_prefix="oci-fetch") as pool:
            futures = [pool.submit(fetch, blob) for blob in ordered]
            done, pending = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((future for future in done if future.exception() is not None), None)
            if failed is not None:
                for future in pending:
                    future.cancel()
                self._stop("another blob of the same image could not be fetched")
        if self.failure is not None:
            raise self.failure

    def _fetch(self, blob: Descriptor, advance: Callable[[int], None], arrival: Arrival) -> Path:
        try:
            return self._store.fetch(blob, self._origin, advance, arrival)
        except BangerError as error:
            if not blob.may_be_missing or error.kind is not ErrorKind.NOT_FOUND:
                raise
            message = f'layer "{blob.digest}" lies outside the registry (a foreign layer)'
            hint = "push the image to a registry together with its foreign layers"
            raise BangerError(error.kind, message, subject=error.subject, cause=error.message, hint=hint) from error

    def _give_up(self, error: BaseException) -> None:
        """Remember the first failure, and let whoever waits for a blob have it too."""
        with self._lock:
            self.failure = self.failure or error
        for arrival in self.arrivals.values():
            arrival.failed(self.failure)

    def _make_room(self, error: BaseException) -> None:
        """On a full disk leave no partial download of any blob: they would only keep it full."""
        if isinstance(error, BangerError) and error.kind is ErrorKind.EXHAUSTED:
            for blob in self._blobs.values():
                self._store.give_up(blob)

    def _stop(self, reason: str) -> None:
        if not self._origin.token.cancelled:
            self._origin.token.cancel(reason)


def fetch_all(
    store: BlobStore, blobs: Sequence[Descriptor], origin: Origin, parallel: int, progress: Progress
) -> list[Path]:
    """Fetch ``blobs`` and return their paths in the same order; arguments and errors are those of :class:`Fetch`."""
    Fetch(store, blobs, origin, parallel).run(progress)
    return [store.path(blob.digest) for blob in blobs]
