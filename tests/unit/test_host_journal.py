"""A VM's own file of what it holds: believed as far as it checks, never further."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.ports import Handle
from banger.host.journal import Journal, encode, put, replay, strike

VM = {"id": "feedfacecafe", "name": "web"}
TAP = Handle("feedfacecafe", "tap", "bg0", "intended", {})
PROCESS = Handle("feedfacecafe", "process", "banger-vm-feedfacecafe", "active", {"pid": 42})


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "handles.journal")


def test_journal_says_what_was_written(journal: Journal) -> None:
    journal.begin(VM, [TAP])
    journal.append(put(PROCESS))
    state = journal.read("feedfacecafe")
    assert state.vm == VM
    assert list(state.handles.values()) == [TAP, PROCESS]
    assert not state.torn


def test_journal_forgets_what_is_struck(journal: Journal) -> None:
    journal.begin(VM, [TAP, PROCESS])
    journal.append(strike("tap", "bg0"))
    assert list(journal.read("feedfacecafe").handles.values()) == [PROCESS]
    journal.append(strike("process", None))
    assert journal.read("feedfacecafe").handles == {}


def test_missing_journal_says_nothing(journal: Journal) -> None:
    state = journal.read("feedfacecafe")
    assert (state.vm, state.handles, state.torn) == (None, {}, False)


def test_journal_cut_at_any_byte_tells_the_truth_as_far_as_it_goes() -> None:
    lines = [encode({"op": "vm", "vm": VM}), encode(put(TAP)), encode(put(PROCESS)), encode(strike("tap", None))]
    data = b"".join(lines)
    ends = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    for cut in range(len(data) + 1):
        whole = max(count for count, end in enumerate(ends) if end <= cut)
        state = replay(data[:cut], "feedfacecafe")
        expected = replay(b"".join(lines[:whole]), "feedfacecafe")
        assert (state.vm, state.handles) == (expected.vm, expected.handles)
        assert state.torn is (cut != ends[whole])


@given(data=st.binary(max_size=300))
def test_nonsense_is_never_believed_and_never_raises(data: bytes) -> None:
    assert replay(data, "feedfacecafe").handles == {}


@given(position=st.integers(0), bit=st.integers(0, 7))
def test_flipped_bit_ends_what_is_believed(position: int, bit: int) -> None:
    first, second = encode(put(TAP)), encode(put(PROCESS))
    damaged = bytearray(first + second)
    damaged[position % len(damaged)] ^= 1 << bit
    state = replay(bytes(damaged), "feedfacecafe")
    assert state.torn
    assert list(state.handles.values()) == ([TAP] if position % len(damaged) >= len(first) else [])


def test_append_after_a_torn_line_drops_it_and_goes_on(journal: Journal, tmp_path: Path) -> None:
    journal.begin(VM, [TAP])
    with (tmp_path / "handles.journal").open("ab") as file:
        file.write(encode(put(PROCESS))[:-7])
    journal.append(strike("tap", "bg0"))
    state = journal.read("feedfacecafe")
    assert (state.handles, state.torn) == ({}, False)


def test_append_of_which_a_full_disk_takes_a_part_is_no_success(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.begin(VM, [TAP])
    room, write = 20, os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(descriptor, data[:room], offset)
        room -= taken
        return taken

    monkeypatch.setattr("banger.host.journal.os.pwrite", pwrite)
    with pytest.raises(OSError, match="No space left"):
        journal.append(put(PROCESS))
    assert list(journal.read("feedfacecafe").handles.values()) == [TAP]
