"""A blob read while it arrives: its end is told only once it was verified, and what changed under a reader is void."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci.arrival import Arrival
from banger.rootfs.parallel_layers import StaleLayerError

CONTENT = b"0123456789"
MISMATCH = BangerError(ErrorKind.INVALID, "the digest is another")


def unchecked() -> None:
    """Nobody gives up."""


@pytest.fixture
def part(tmp_path: Path) -> Path:
    part = tmp_path / "blob.part"
    part.write_bytes(CONTENT)
    return part


@contextmanager
def reading(arrival: Arrival) -> Iterator[SimpleQueue[bytes | BaseException]]:
    """Read in a thread; the queue gets every piece (the empty one last), or what was raised."""
    pieces: SimpleQueue[bytes | BaseException] = SimpleQueue()

    def read() -> None:
        try:
            with arrival.open(unchecked) as source:
                while piece := source.read(4):
                    pieces.put(piece)
                pieces.put(b"")
        except (BangerError, StaleLayerError) as error:
            pieces.put(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield pieces
    finally:
        arrival.failed(MISMATCH)
        thread.join()


def test_bytes_are_read_as_they_arrive_and_the_end_once_they_are_verified(part: Path) -> None:
    arrival = Arrival(len(CONTENT))
    with reading(arrival) as pieces:
        arrival.reached(part, 3)
        assert pieces.get(timeout=5) == b"012"
        arrival.reached(part, len(CONTENT))
        assert [pieces.get(timeout=5) for _ in range(2)] == [b"3456", b"789"]
        assert pieces.empty()
        part.rename(part.with_suffix(""))
        arrival.verified(part.with_suffix(""))
        assert pieces.get(timeout=5) == b""


def test_blob_that_got_its_name_between_the_news_and_the_opening_is_read_there(part: Path) -> None:
    arrival = Arrival(len(CONTENT))
    arrival.reached(part, 3)
    part.rename(part.with_suffix(""))
    with reading(arrival) as pieces:
        arrival.verified(part.with_suffix(""))
        assert b"".join(iter(lambda: pieces.get(timeout=5), b"")) == CONTENT  # type: ignore[arg-type]


@pytest.mark.parametrize("present", [0, 5, len(CONTENT)])
def test_failure_of_the_transfer_reaches_the_reader_even_after_the_last_byte(part: Path, present: int) -> None:
    arrival = Arrival(len(CONTENT))
    arrival.reached(part, present)
    with reading(arrival) as pieces:
        arrival.failed(MISMATCH)
        arrival.failed(BangerError(ErrorKind.CANCELLED, "a later one"))
        while isinstance(last := pieces.get(timeout=5), bytes):
            assert last
        assert last is MISMATCH


def test_transfer_that_began_anew_makes_what_was_read_void_even_if_more_bytes_came_than_before(part: Path) -> None:
    arrival = Arrival(len(CONTENT))
    arrival.reached(part, 5)
    with arrival.open(unchecked) as source:
        assert source.read(5) == CONTENT[:5]
        arrival.restarted()
        arrival.reached(part, 8)
        with pytest.raises(StaleLayerError):
            source.read(5)
    arrival.verified(part)
    with arrival.open(unchecked) as source:
        assert source.read(100) == CONTENT
        source.confirm()


def test_all_bytes_read_before_a_restart_are_not_confirmed_by_another_verified_transfer(part: Path) -> None:
    arrival = Arrival(len(CONTENT))
    arrival.reached(part, len(CONTENT))
    with arrival.open(unchecked) as source:
        source.read(100)
        arrival.restarted()
        arrival.verified(part)
        with pytest.raises(StaleLayerError):
            source.confirm()


def test_part_cut_under_the_reader_is_not_its_end(part: Path) -> None:
    arrival = Arrival(len(CONTENT))
    arrival.reached(part, 8)
    with arrival.open(unchecked) as source:
        source.read(4)
        part.write_bytes(b"")
        with pytest.raises(StaleLayerError):
            source.read(4)


def test_wait_ends_when_nobody_wants_the_bytes_any_more() -> None:
    def give_up() -> None:
        raise BangerError(ErrorKind.CANCELLED, "changed my mind")

    with Arrival(10).open(give_up) as source, pytest.raises(BangerError, match="changed my mind"):
        source.read(1)
