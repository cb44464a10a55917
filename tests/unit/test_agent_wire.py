"""The guest agent's protocol as bytes: what is encoded is decoded, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.agent import messages
from banger.agent.messages import Cause, Entry, EntryReader, Exit, PathInfo, Request, Result
from banger.agent.wire import (
    HELLO_BYTES,
    MAGIC,
    MAX_PAYLOAD,
    MAX_REQUEST,
    NO_NONCE,
    PADDING_BYTES,
    Flag,
    Frame,
    FrameDecoder,
    Hello,
    HostDecoder,
    Kind,
    Reason,
    Welcome,
    WireError,
)

TAG = 0x01FF0203
NONCE = bytes(range(1, 17))
streams = st.integers(1, 2**32 - 1)
agent_frames = st.one_of(
    st.builds(Frame, streams, st.just(Kind.DATA), st.sampled_from([Flag.NONE, Flag.END, Flag.ERR]), st.binary()),
    st.builds(Frame, streams, st.just(Kind.CREDIT), st.just(Flag.NONE), st.binary(min_size=4, max_size=4)),
    st.builds(Frame, streams, st.just(Kind.STOP), st.just(Flag.NONE), st.just(b"")),
    st.builds(Frame, streams, st.just(Kind.RESULT), st.just(Flag.NONE), st.binary(min_size=12, max_size=99)),
    st.builds(Frame, st.just(0), st.just(Kind.PONG), st.just(Flag.NONE), st.binary(max_size=64)),
)


def welcome(nonce: bytes = NONCE, tag: int = TAG, reason: Reason = Reason.GREETED) -> Welcome:
    return Welcome(nonce, int(bool(tag)), 1, 1, reason, tag, 0, NONCE, "0.1.0", 256, 1)


def decoded(decoder: HostDecoder | FrameDecoder, data: bytes, step: int) -> list[Frame]:
    return [frame for start in range(0, len(data), step) for frame in decoder.feed(data[start : start + step])]


@given(st.lists(agent_frames, max_size=5), st.binary(max_size=200), st.integers(1, 99))
def test_session_in_any_pieces_behind_any_rest_of_another_is_decoded(
    frames: list[Frame], before: bytes, step: int
) -> None:
    decoder = HostDecoder(NONCE)
    data = before + MAGIC + welcome().encode() + b"".join(frame.encode(TAG) for frame in frames)
    assert decoded(decoder, data, step) == frames
    assert decoder.welcome == welcome()
    assert decoder.lost is None


@given(st.binary(max_size=2000), st.integers(1, 99))
def test_bytes_of_a_hostile_guest_are_frames_or_an_error_and_are_not_kept(data: bytes, step: int) -> None:
    decoder = HostDecoder(NONCE)
    assert decoded(decoder, data, step) == []
    assert len(decoder._frames.buffer) <= len(MAGIC + NONCE)
    decoder = HostDecoder(NONCE)
    list(decoder.feed(welcome().encode()))
    try:
        for frame in decoded(decoder, data, step):
            assert len(frame.payload) <= MAX_PAYLOAD
    except WireError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("step", [1, 17, 500])
def test_announcement_in_place_of_a_frame_says_that_the_session_is_lost(step: int) -> None:
    decoder = HostDecoder(NONCE)
    lost = welcome(NO_NONCE, 0, Reason.BAD_FRAME)
    frame = Frame(3, Kind.DATA, Flag.NONE, b"x" * 100)
    data = welcome().encode() + frame.encode(TAG) + lost.encode() + frame.encode(TAG)
    assert decoded(decoder, data, step) == [frame]
    assert decoder.lost == lost


@pytest.mark.parametrize("cut", range(1, 140))
def test_frame_cut_off_by_a_greeting_never_becomes_one(cut: int) -> None:
    whole = Frame(7, Kind.DATA, Flag.NONE, b"\1" * 119).encode(TAG)
    decoder = FrameDecoder(TAG, from_agent=False)
    with pytest.raises(WireError):
        list(decoder.feed(whole[:cut] + Hello(NONCE, 65536).encode()))


def test_greeting_comes_behind_zeros_and_is_read_as_it_was_written() -> None:
    hello = Hello(NONCE, 1 << 20, 1, 4)
    data = hello.encode()
    assert data[:PADDING_BYTES] == bytes(PADDING_BYTES)
    assert Hello.decode(data[PADDING_BYTES:]) == hello
    assert len(hello.encode(padded=False)) == HELLO_BYTES


@pytest.mark.parametrize("bad", [Hello(NO_NONCE, 65536), Hello(NONCE, 1), Hello(NONCE, 1 << 30)])
def test_greeting_that_makes_no_sense_is_refused(bad: Hello) -> None:
    with pytest.raises(WireError):
        Hello.decode(bad.encode(padded=False))


@given(st.binary(max_size=MAX_REQUEST + 10))
def test_request_travels_in_frames_that_join_to_it(fields: bytes) -> None:
    frames = list(Request(messages.Op.EXEC, fields, 3).frames(9, 77))
    assert all(len(frame.payload) <= MAX_PAYLOAD for frame in frames)
    assert [frame.flags for frame in frames] == [Flag.MORE] * (len(frames) - 1) + [Flag.NONE]
    assert b"".join(frame.payload for frame in frames)[8:] == fields


def test_request_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="is the most"):
        list(Request(messages.Op.EXEC, bytes(MAX_REQUEST)).frames(1, 0))


#: A zero byte ends a string of the protocol.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.builds(Result, st.integers(0, 999), st.integers(0, 133), texts, st.binary()))
def test_result_is_read_as_it_was_written(result: Result) -> None:
    assert Result.decode(result.encode()) == result


numbers = st.integers(0, 2**32 - 1)
entries = st.builds(
    Entry, st.integers(0, 7), numbers, numbers, numbers, numbers, numbers, numbers, numbers, st.binary(), st.binary()
)


@given(st.lists(entries, max_size=4), st.integers(1, 99))
def test_entries_in_any_pieces_are_decoded(listed: list[Entry], step: int) -> None:
    reader, data = EntryReader(), b"".join(entry.encode() for entry in listed)
    found = [entry for start in range(0, len(data), step) for entry in reader.feed(data[start : start + step])]
    reader.close()
    assert found == listed


@given(st.integers(0, 7), entries, st.binary())
def test_path_and_exit_are_read_as_they_were_written(kind: int, entry: Entry, real_path: bytes) -> None:
    info = PathInfo(kind, entry, real_path)
    assert PathInfo.decode(info.encode()) == info
    ended = Exit(True, 9, Cause.TIMEOUT, 1, 2, 3)
    assert Exit.decode(ended.encode()) == ended


@given(st.binary(max_size=400))
def test_results_of_a_hostile_guest_are_values_or_an_error(data: bytes) -> None:
    for read in (Result.decode, PathInfo.decode, Exit.decode, messages.read_u64, EntryReader().feed):
        try:
            list(read(data)) if read.__name__ == "feed" else read(data)
        except WireError as error:
            assert str(error).isprintable()
