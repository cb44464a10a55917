"""Small tar archives, and streams of them, for what copies to and from guests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable

Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **facts: object) -> Member:
    """A member and its data; ``facts`` are fields of its ``TarInfo``."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(data), 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in facts.items():
        setattr(info, field, value)
    return info, data


def archive(*members: Member, form: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive of them, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def receiver(data: bytes, step: int = 700) -> Callable[[], bytes]:
    """Gives ``data`` in pieces, then nothing."""
    pieces = (data[i : i + step] for i in range(0, len(data), step))
    return lambda: next(pieces, b"")


def read_archive(pieces: Iterable[bytes]) -> dict[str, Member]:
    """What an archive holds, by name."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        files = {info.name: tar.extractfile(info) if info.isreg() else None for info in tar}
        return {name: (tar.getmember(name), file.read() if file else b"") for name, file in files.items()}
