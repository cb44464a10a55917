"""Reading a directory of the host as a tree for an image; used for kernel modules."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.rootfs.layer import DataSink
from banger.rootfs.nodes import Directory, File, Node, Symlink
from banger.rootfs.reader import ChunkReader
from banger.rootfs.refusals import refused, shown

_CHUNK_BYTES = 256 << 10


def read_directory(path: Path, sink: DataSink, on_input: Callable[[int], None], token: CancelToken) -> Directory:
    """Read everything below ``path``, sorted by name, following no symbolic link; owners become root.

    Args:
        path: the directory; itself it may be reached through a link.
        sink: takes the files' data.
        on_input: called with the size of each piece of data read.
        token: cancels.

    Raises:
        BangerError: ``invalid`` for anything but files, directories and symbolic links; ``cancelled``.
        OSError: if something cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _read(descriptor, sink, on_input, token)
    finally:
        os.close(descriptor)


def _read(descriptor: int, sink: DataSink, on_input: Callable[[int], None], token: CancelToken) -> Directory:
    directory = Directory(*_attributes(os.fstat(descriptor)))
    for name in sorted(os.fsencode(entry) for entry in os.listdir(descriptor)):
        token.raise_if_cancelled()
        facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        node: Node
        if stat.S_ISLNK(facts.st_mode):
            node = Symlink(*_attributes(facts), target=os.readlink(name, dir_fd=descriptor))
        elif stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode):
            # Non-blocking, in case it has become a pipe since; not following, in case it has become a link.
            inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                node = _opened(inner, name, sink, on_input, token)
            finally:
                os.close(inner)
        else:
            raise refused(f"{shown(name)} is neither a file nor a directory nor a symbolic link")
        if isinstance(node, Directory):
            node.parent = directory
        directory.entries[name] = node
    return directory


def _opened(descriptor: int, name: bytes, sink: DataSink, on_input: Callable[[int], None], token: CancelToken) -> Node:
    facts = os.fstat(descriptor)
    if stat.S_ISDIR(facts.st_mode):
        return _read(descriptor, sink, on_input, token)
    if not stat.S_ISREG(facts.st_mode):
        raise refused(f"{shown(name)} changed while it was read")
    reader = ChunkReader(_chunks(descriptor, on_input, token))
    return File(*_attributes(facts), size=facts.st_size, extents=sink.store(reader, facts.st_size))


def _chunks(descriptor: int, on_input: Callable[[int], None], token: CancelToken) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        token.raise_if_cancelled()
        on_input(len(chunk))
        yield chunk


def _attributes(facts: os.stat_result) -> tuple[int, int, int, int]:
    """Mode without set-id bits (the owner changes), owner and group root, time of change."""
    return facts.st_mode & 0o1777, 0, 0, facts.st_mtime_ns
