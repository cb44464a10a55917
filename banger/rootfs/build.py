"""Building a checked ext4 image from OCI layers.

The layers' data is written into an empty file system while they are decompressed; their names and attributes are
merged in memory and written last. Nothing is unpacked, mounted or run with privileges.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.units import GIB, MIB, format_size
from banger.rootfs.directory import read_directory
from banger.rootfs.ext4.blocks import ImageFullError
from banger.rootfs.ext4.skeleton import host_error, make_empty
from banger.rootfs.ext4.writer import Ext4Writer, open_image
from banger.rootfs.limits import Budget, Limits
from banger.rootfs.nodes import Directory, File
from banger.rootfs.parallel_layers import Layer, LayerProgress, ParallelLayers, StaleLayerError
from banger.rootfs.refusals import refused
from banger.rootfs.tools import check_file_system
from banger.rootfs.tree import Tree

__all__ = ["Layer", "RootfsStats", "build_from_directory", "build_rootfs"]

_MIN_BYTES = 2 * GIB
_MAX_BYTES = 64 * GIB
_STREAM_BYTES = 4 * GIB
#: First guess at the image's size as a multiple of the compressed layers: real ones inflate two to four times, and the
#: file is sparse.
_GENEROSITY = 8
_GROWTH = 4
#: Seconds between two rounds of writing to the host's disk.
_WRITE_BACK_S = 0.25
_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class RootfsStats:
    """What was built.

    Attributes:
        size_bytes: apparent size of the image.
        disk_bytes: what it occupies on the host.
        entries: files, directories, links and devices in it; a file with several names counts once.
        file_bytes: sizes of its files.
    """

    size_bytes: int
    disk_bytes: int
    entries: int
    file_bytes: int


def build_rootfs(
    layers: Sequence[Layer],
    target: Path,
    *,
    operation: Operation,
    size_bytes: int = 0,
    limits: Limits = _DEFAULT_LIMITS,
    reserved_uuid: uuid.UUID | None = None,
) -> RootfsStats:
    """Write the image that ``layers``, bottom first, add up to; none make an empty root.

    Args:
        layers: local and verified, or arriving: the image is made of verified bytes or not at all. A stream must be
            the only layer, as it cannot be read twice.
        target: the file to make; replaced if it exists, gone after any failure.
        operation: gets the steps "write file system" and "check file system"; its token cancels.
        size_bytes: size of the file system. 0 chooses a generous one (the file is sparse), and a larger one if that
            turns out too small.
        limits: ceilings for what the layers may hold.
        reserved_uuid: UUID of the file system. Equal layers with an equal UUID give equal bytes; by default a new one.

    Raises:
        BangerError: ``invalid`` for layers that are broken, hostile or beyond the limits; ``exhausted`` if the file
            system or the host's disk is full; ``unavailable`` without e2fsprogs; ``cancelled``; ``internal`` if the
            result is not clean.
    """
    if len(layers) > limits.layers:
        raise refused(f"the image has {len(layers)} layers, more than {limits.layers}")
    streamed = any(layer.stream is not None for layer in layers)
    if streamed and len(layers) > 1:
        raise BangerError(ErrorKind.INTERNAL, "a streamed layer must be the only one")
    total = sum(layer.compressed_bytes for layer in layers)

    def fill(image: Ext4Writer, progress: LayerProgress) -> Directory:
        budget = Budget(limits, lambda: shutil.disk_usage(target.parent).free)
        tree = Tree(budget)
        try:
            read = ParallelLayers(image, budget, progress, operation.token).read(layers)
        except StaleLayerError:
            # Once is enough: the next attempt reads what is verified.
            for layer in layers:
                if layer.arriving is not None:
                    layer.arriving.wait(operation.token.raise_if_cancelled)
            raise
        for changes in read:
            operation.token.raise_if_cancelled()
            tree.apply(changes)
        return tree.root

    # A stream gives its bytes only once, so there is no second try with it.
    if not size_bytes and streamed:
        size_bytes = _STREAM_BYTES
    sizes = [size_bytes] if size_bytes else _growing_sizes(total, limits.total_bytes)
    return _build(target, operation, sizes, total, fill, reserved_uuid)


def build_from_directory(directory: Path, target: Path, *, operation: Operation, size_bytes: int = 0) -> RootfsStats:
    """Write an image of a directory of the host: its files, directories and symbolic links, all owned by root.

    Nothing is followed out of ``directory``. Arguments and errors are otherwise those of :func:`build_rootfs`.

    Raises:
        BangerError: ``invalid`` if there is anything else in it, such as a socket.
    """

    def fill(image: Ext4Writer, progress: LayerProgress) -> Directory:
        writer = image.data_writer(0)
        root = read_directory(directory, writer, progress.add, operation.token)
        writer.close()
        return root

    sizes = [size_bytes] if size_bytes else _growing_sizes(0)
    return _build(target, operation, sizes, 0, fill, None)


Filler = Callable[[Ext4Writer, LayerProgress], Directory]
"""Writes the data of files into an image; returns the tree that names them."""


def _build(
    target: Path, operation: Operation, sizes: Sequence[int], total: int, fill: Filler, fixed: uuid.UUID | None
) -> RootfsStats:
    """Fill an image, check and sync it; whatever goes wrong, no file is left."""
    try:
        with operation.step("write file system") as step:
            progress = LayerProgress(step, total)
            root, entries = _write(target, operation.token, sizes, progress, fill, fixed)
        with operation.step("check file system"), _host_errors(target, progress):
            with ThreadPoolExecutor(1, thread_name_prefix="sync") as pool:
                synced = pool.submit(_sync, target)
                check_file_system(target, operation.token)
                synced.result()
            return _stats(target, root, entries)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, Exception):
            # Whatever else went wrong (a pipe that broke, say), to the caller it was the cancelling.
            operation.token.raise_if_cancelled()
        raise


def _write(
    target: Path,
    token: CancelToken,
    sizes: Sequence[int],
    progress: LayerProgress,
    fill: Filler,
    fixed: uuid.UUID | None,
) -> tuple[Directory, int]:
    """Fill an image of the first of ``sizes`` that is large enough."""
    left = list(sizes)
    while left:
        target.unlink(missing_ok=True)
        progress.restart()
        make_empty(target, left[0], fixed=fixed, token=token)
        with suppress(StaleLayerError), _host_errors(target, progress), _filling(target) as image:
            try:
                root = fill(image, progress)
                return root, image.finish(root, token)
            except ImageFullError:
                del left[0]
    raise BangerError(
        ErrorKind.EXHAUSTED,
        f"the content does not fit into a file system of {format_size(sizes[-1])}",
        hint="ask for a larger one with --size",
    )


def _growing_sizes(compressed_bytes: int, total_bytes: int = 0) -> list[int]:
    # A file system has some of its own to keep, too.
    most = max(_MAX_BYTES, total_bytes + total_bytes // 8)
    size = min(max(_MIN_BYTES, _GENEROSITY * compressed_bytes), most)
    sizes = [-(-size // MIB) * MIB]
    while sizes[-1] < most:
        sizes.append(min(sizes[-1] * _GROWTH, most))
    return sizes


@contextmanager
def _host_errors(target: Path, progress: LayerProgress) -> Iterator[None]:
    """Turn what the host's file system says into an error that says how much room is needed."""
    try:
        yield
    except OSError as error:
        raise host_error(error, target, progress.estimate(_disk_bytes(target))) from error


def _disk_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


@contextmanager
def _filling(path: Path) -> Iterator[Ext4Writer]:
    """Open the empty image; meanwhile the host's disk takes what is in it so far, so that in the end little is left."""
    done = threading.Event()

    def write_back() -> None:
        while not done.wait(_WRITE_BACK_S):
            _sync(path)

    with ThreadPoolExecutor(1, thread_name_prefix="write-back") as pool:
        written = pool.submit(write_back)
        try:
            with open_image(path) as image:
                yield image
        finally:
            done.set()
        # A failure is told once only: the sync at the end would not hear of it.
        written.result()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stats(target: Path, root: Directory, entries: int) -> RootfsStats:
    files: dict[int, int] = {}
    directories = [root]
    for directory in directories:
        for node in directory.entries.values():
            if isinstance(node, File):
                files[node.number] = node.size
            elif isinstance(node, Directory):
                directories.append(node)
    return RootfsStats(target.stat().st_size, _disk_bytes(target), entries, sum(files.values()))
