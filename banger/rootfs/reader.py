"""A forward-only reader over a stream of chunks that avoids copying bytes."""

from __future__ import annotations

from collections.abc import Iterator

from banger.rootfs.refusals import refused


class ChunkReader:
    """Reads exactly what is asked for from an iterator of chunks, and never looks back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def take(self, count: int) -> tuple[bytes, int]:
        """The next ``count`` bytes, as a buffer and the offset in it where they begin.

        The buffer is the chunk itself unless the bytes straddle two, so ``count`` should be small beside a chunk.

        Raises:
            BangerError: ``invalid`` if the stream ends before that.
        """
        start = self._at
        end = start + count
        if end <= len(self._chunk):
            self._at = end
            return self._chunk, start
        return self._gather(count), 0

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes as an object of their own; raises as :meth:`take` does."""
        buffer, start = self.take(count)
        return buffer[start : start + count]

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes; raises as :meth:`take` does."""
        while count > (here := len(self._chunk) - self._at):
            count -= here
            if not self._next_chunk():
                raise _truncated()
        self._at += count

    def at_end(self) -> bool:
        """True if not one byte is left."""
        return self._at == len(self._chunk) and not self._next_chunk()

    def drain(self) -> None:
        """Read to the end, so that the decompressor gets to verify its checksum."""
        while self._next_chunk():
            pass

    def _next_chunk(self) -> bool:
        self._chunk, self._at = next(self._chunks, b""), 0
        return bool(self._chunk)

    def _gather(self, count: int) -> bytes:
        parts = []
        while count > (here := len(self._chunk) - self._at):
            parts.append(self._chunk[self._at :])
            count -= here
            if not self._next_chunk():
                raise _truncated()
        parts.append(self._chunk[:count] if parts else self._chunk[self._at : self._at + count])
        self._at += count
        return b"".join(parts)


def _truncated() -> Exception:
    return refused("the archive is truncated")
