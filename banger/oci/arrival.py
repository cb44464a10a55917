"""A blob that can be read while it is downloaded, and that ends only after its digest was verified."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from banger.rootfs.parallel_layers import StaleLayerError

#: How often a reader that waits for bytes looks whether it is still wanted.
_POLL_S = 0.1
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Arrival:
    """One blob on its way: its transfer's thread tells, any number of others read.

    Whoever has read to the end has read verified bytes. Those before the end are not verified yet: what is made of
    them must be thrown away if reading on fails.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = threading.Condition()
        self._path: Path | None = None
        self._present = 0
        self._round = 0
        self._verified = False
        self._failure: BaseException | None = None

    # -- the transfer's side ---------------------------------------------------------------------------

    def reached(self, path: Path, present: int) -> None:
        """The first ``present`` bytes are in the file ``path``."""
        with self._changed:
            self._path, self._present = path, present
            self._changed.notify_all()

    def restarted(self) -> None:
        """What was told so far is void: the bytes come once more, and may be others."""
        with self._changed:
            self._path, self._present = None, 0
            self._round += 1
            self._changed.notify_all()

    def verified(self, path: Path) -> None:
        """All bytes are in ``path`` and have the right digest."""
        with self._changed:
            self._path, self._present, self._verified = path, self._size, True
            self._changed.notify_all()

    def failed(self, failure: BaseException) -> None:
        """The bytes will not come; ignored after :meth:`verified` or an earlier failure."""
        with self._changed:
            if not self._verified and self._failure is None:
                self._failure = failure
            self._changed.notify_all()

    # -- the readers' side -----------------------------------------------------------------------------

    @contextmanager
    def open(self, check: Callable[[], None]) -> Iterator[ArrivingBytes]:
        """Read from the first byte on.

        Args:
            check: called now and then while a read waits; what it raises ends the wait.
        """
        reader = ArrivingBytes(self, check)
        try:
            yield reader
        finally:
            reader.close()

    def wait(self, check: Callable[[], None]) -> None:
        """Return once the blob is verified; raises why it never will be, or what ``check`` raises."""
        self._wait_until(lambda: self._verified, check)

    def _wait_until(self, ready: Callable[[], bool], check: Callable[[], None]) -> None:
        with self._changed:
            while not ready():
                if self._failure is not None:
                    raise self._failure
                check()
                self._changed.wait(_POLL_S)

    def beyond(self, at: int, of_round: int | None, check: Callable[[], None]) -> tuple[Path | None, int, int]:
        """Wait for more than ``at`` bytes or for the verified end; file, bytes present, and how often it began anew.

        Raises ``StaleLayerError`` if that is not ``of_round`` times any more.
        """

        def ready() -> bool:
            moved_on = of_round is not None and self._round != of_round
            return moved_on or self._verified or self._present > at

        with self._changed:
            self._wait_until(ready, check)
            if of_round is not None and self._round != of_round:
                raise StaleLayerError
            return self._path, self._present, self._round


class ArrivingBytes:
    """One reader of an :class:`Arrival`; used by a single thread."""

    def __init__(self, arrival: Arrival, check: Callable[[], None]) -> None:
        self._arrival = arrival
        self._check = check
        self._descriptor = -1
        self._round: int | None = None
        self._at = 0

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes, as soon as there are any; empty at the end, which is told of a verified blob only.

        Raises:
            StaleLayerError: the transfer began anew; what was read before is void.
            BangerError: of the transfer that failed.
        """
        path, present, self._round = self._arrival.beyond(self._at, self._round, self._check)
        if self._descriptor < 0 and path is not None:
            self._descriptor = self._open(path)
        data = os.pread(self._descriptor, min(size, present - self._at), self._at)
        if not data and self._at < present:  # emptied by a transfer that begins anew
            raise StaleLayerError
        self._at += len(data)
        return data

    def confirm(self) -> None:
        """Return once all that was read is proven to be the blob's; raises as :meth:`read` does."""
        self._arrival.wait(self._check)
        self._arrival.beyond(self._at, self._round, self._check)

    def _open(self, path: Path) -> int:
        with suppress(FileNotFoundError):
            return os.open(path, _FLAGS)
        # It gets its final name this very moment, or is gone for good.
        self._arrival.wait(self._check)
        final, _, _ = self._arrival.beyond(self._at, self._round, self._check)
        return os.open(final or path, _FLAGS)

    def close(self) -> None:
        """Close the file; the transfer goes on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
