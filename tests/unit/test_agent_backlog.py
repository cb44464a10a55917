"""Output that waits for its reader."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from banger.agent.backlog import Backlog
from banger.core.exec import Stream


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=60), st.integers(1, 7))
def test_both_outputs_come_back_in_their_order(chunks: list[tuple[bool, bytes]], every: int) -> None:
    backlog, expected, got = Backlog(), [], []
    for index, (is_error, data) in enumerate(chunks):
        backlog.put(data, is_error=is_error)
        expected += [(is_error, byte) for byte in data]
        if index % every == 0 and len(backlog):
            stream, piece = backlog.take()
            got += [(stream is Stream.STDERR, byte) for byte in piece]
    while backlog:
        stream, piece = backlog.take()
        got += [(stream is Stream.STDERR, byte) for byte in piece]
    assert got == expected


def test_bytes_that_come_one_by_one_in_turn_take_little_more_than_themselves() -> None:
    size = 256 << 10
    tracemalloc.start()
    backlog = Backlog()
    for index in range(size):
        backlog.put(b"x", is_error=bool(index % 2))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 8 * size


def test_long_output_is_read_in_pieces_that_fit_a_frame() -> None:
    backlog = Backlog()
    backlog.put(bytes(1 << 20), is_error=False)
    pieces = []
    while backlog:
        pieces.append(len(backlog.take()[1]))
    assert (sum(pieces), max(pieces)) == (1 << 20, 256 << 10)
