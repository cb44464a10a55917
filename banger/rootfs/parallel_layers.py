"""Reading the layers of an image in parallel, on two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Step
from banger.rootfs.decompress import ByteSource, Compression, decompressed
from banger.rootfs.ext4.blocks import FreeBlocks, ImageFullError
from banger.rootfs.ext4.data import DataWriter
from banger.rootfs.ext4.writer import Ext4Writer
from banger.rootfs.layer import LayerChanges, read_layer
from banger.rootfs.layer_hash import LayerHash, layer_hash
from banger.rootfs.limits import Budget
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused
from banger.rootfs.tar import TarReader


class StaleLayerError(Exception):
    """What was read of a layer while it arrived is not what it turned out to be: the image must be begun anew."""


class ArrivingBytes(ByteSource, Protocol):
    """A layer being read that is not verified before its end; may raise :class:`StaleLayerError`."""

    def confirm(self) -> None:
        """Return once all that was read is verified; raises why it is not."""
        ...


class Arriving(Protocol):
    """A layer that can be read while it is fetched. ``check`` ends a wait by raising."""

    def open(self, check: Callable[[], None]) -> AbstractContextManager[ArrivingBytes]:
        """Read it from its first byte on, as often as is needed."""
        ...

    def wait(self, check: Callable[[], None]) -> None:
        """Return once it is verified; from then on it is never stale."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: a local file whose digest was verified, an open stream, or a file that is still arriving.

    Attributes:
        path: a tar archive, plain or compressed by gzip or zstd; what it is, its first bytes tell.
        digest: ``sha256:…`` of the file, where it is known; whoever brings the file has verified it.
        diff_id: ``sha256:…`` of the uncompressed archive, which is verified here; empty if nobody says.
        compressed_bytes: size of the file, for progress and for the choice of the image's size; 0 if unknown.
        stream: read instead of ``path``, once and forward only; the caller closes it.
        arriving: read instead of ``path``, perhaps before all of it is there.
    """

    path: Path | None = None
    compressed_bytes: int = 0
    stream: BinaryIO | None = None
    arriving: Arriving | None = None
    digest: str = ""
    diff_id: str = ""

    @contextmanager
    def open(self, check: Callable[[], None]) -> Iterator[tuple[ByteSource, Callable[[], None]]]:
        """The layer's bytes, and what proves afterwards that they were the right ones.

        Args:
            check: ends a wait for bytes by raising.
        """
        if self.arriving is not None:
            with self.arriving.open(check) as arriving:
                yield arriving, arriving.confirm
        elif self.stream is not None:
            yield self.stream, _trusted
        elif self.path is not None:
            with self.path.open("rb", buffering=0) as file:
                yield file, _trusted
        else:
            raise BangerError(ErrorKind.INTERNAL, "a layer has neither a path nor a stream")


def _trusted() -> None:
    """Nothing is left to prove."""


class LayerProgress:
    """Compressed bytes consumed so far, reported to a step. Thread-safe."""

    def __init__(self, step: Step, total: int) -> None:
        self._step = step
        self._total = total or None
        self._lock = threading.Lock()
        self.done = 0

    def add(self, count: int) -> None:
        """Count ``count`` bytes more."""
        with self._lock:
            self.done += count
            self._step.update(self.done, self._total)

    def restart(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self.done = 0

    def estimate(self, written_bytes: int) -> int:
        """What will have been written in the end, if it goes on as it did so far."""
        if not self._total or not self.done:
            return written_bytes
        return written_bytes * max(self._total, self.done) // self.done


class _AbandonedError(Exception):
    """This thread stopped because the other one failed."""


class ParallelLayers:
    """Reads the layers of one image into it, on two threads."""

    def __init__(self, image: Ext4Writer, budget: Budget, progress: LayerProgress, token: CancelToken) -> None:
        self._image = image
        self._budget = budget
        self._progress = progress
        self._token = token
        self._failed = threading.Event()

    def read(self, layers: Sequence[Layer]) -> list[LayerChanges]:
        """Read every layer; the result is in their order.

        Raises:
            BangerError: ``invalid`` naming the layer; ``cancelled``; why a layer does not arrive.
            StaleLayerError: a layer turned out to be another than what was read of it.
            ImageFullError, OSError: from the writers.
        """
        if not layers:
            return []
        changes: list[LayerChanges | None] = [None] * len(layers)
        shares = share_out([layer.compressed_bytes for layer in layers], FreeBlocks.WRITERS)
        writers = [self._image.data_writer(index) for index in range(len(shares))]
        with ThreadPoolExecutor(len(shares), thread_name_prefix="layers") as pool:
            futures = [
                pool.submit(self._run, layers, share, writer, changes)
                for share, writer in zip(shares, writers, strict=True)
            ]
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, _AbandonedError))
        for writer in writers:
            writer.close()
        return [change for change in changes if change is not None]

    def _run(
        self, layers: Sequence[Layer], share: Sequence[int], writer: DataWriter, changes: list[LayerChanges | None]
    ) -> None:
        try:
            for index in share:
                changes[index] = self._read_one(layers[index], index, len(layers), writer)
            writer.flush()
        except BaseException:
            self._failed.set()
            raise

    def _read_one(self, layer: Layer, index: int, count: int, writer: DataWriter) -> LayerChanges:
        with layer.open(self._check) as (source, confirm):
            try:
                changes = self._parse(layer, source, writer)
            except ImageFullError:
                confirm()
                raise
            except BangerError as error:
                if error.kind is not ErrorKind.INVALID:
                    raise
                # What is wrong with bytes that are the wrong ones is of no interest: the transfer's own error is.
                confirm()
                which = f"layer {index + 1} of {count}" if count > 1 else "the layer"
                message = f"{which} is not acceptable"
                raise BangerError(ErrorKind.INVALID, message, cause=error.message, hint=error.hint) from error
            confirm()
            return changes

    def _parse(self, layer: Layer, source: ByteSource, writer: DataWriter) -> LayerChanges:
        compression, chunks = decompressed(source, self._consumed, junk_may_follow=bool(layer.diff_id))
        if not layer.diff_id:
            return self._read_archive(layer, chunks, writer)
        algorithm = layer.diff_id.partition(":")[0]
        if compression is Compression.NONE and layer.digest.startswith(f"{algorithm}:"):
            _require_diff_id(layer, layer.digest)
            return self._read_archive(layer, chunks, writer)
        with layer_hash(algorithm) as digest:
            changes = self._read_archive(layer, _hashed(chunks, digest), writer)
            _require_diff_id(layer, digest.digest())
            return changes

    def _read_archive(self, layer: Layer, chunks: Iterator[bytes], writer: DataWriter) -> LayerChanges:
        reader = ChunkReader(self._metered(chunks))
        # A pipe whose writer died ends like any other.
        members = TarReader(reader, self._budget.limits, end_marker=layer.stream is not None, sparse=True)
        return read_layer(members, reader, writer, self._budget)

    def _check(self) -> None:
        self._token.raise_if_cancelled()
        if self._failed.is_set():
            raise _AbandonedError

    def _consumed(self, count: int) -> None:
        self._check()
        self._progress.add(count)

    def _metered(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            self._budget.spend_inflated(len(chunk))
            yield chunk


def _hashed(chunks: Iterator[bytes], digest: LayerHash) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _require_diff_id(layer: Layer, found: str) -> None:
    if found != layer.diff_id:
        raise refused(f"it unpacks to {found}, but the image's configuration has {layer.diff_id} (diff_id)")


def share_out(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Which indices of ``sizes`` each of ``count`` threads reads: the largest go first, to the least loaded.

    The shares are decided beforehand, so that what ends up where in the image never depends on timing.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += max(sizes[index], 1)
    return [share for share in shares if share]
