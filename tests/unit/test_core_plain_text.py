"""What guests and registries say can be read, and does nothing else."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.plain_text import PrintableStream, json_escaped, printable, printable_lines

PIECES = st.lists(
    st.one_of(st.sampled_from([b"\x1b[0;32m", b"\x1b", b"[1m", b"\r\n", b"\r", b"\n", b"\xc3", b"\xa9"]), st.binary())
)


def steers(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp") or 0x202A <= ord(char) <= 0x202E}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b]0;owned\x07b", "a\\x1b]0;owned\\x07b"),
        ("\x9b31mred", "\\x9b31mred"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("over\rwritten", "over\\x0dwritten"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("line\u2028separator", "line\\u2028separator"),
    ],
)
def test_line_shows_what_would_steer_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines_and_lose_their_colours() -> None:
    assert printable_lines("[\x1b[0;32m  OK  \x1b[0m] up\r\r\nnext\x1b[2J\n") == "[  OK  ] up\nnext\\x1b[2J\n"


@given(PIECES)
def test_stream_is_the_same_however_it_is_cut(pieces: list[bytes]) -> None:
    stream = PrintableStream()
    shown = "".join(map(stream.feed, pieces)) + stream.end()
    assert shown == printable_lines(b"".join(pieces).decode(errors="replace"))
    assert steers(shown) <= {"\n", "\t"}


@given(st.text())
def test_json_means_the_same_when_escaped(text: str) -> None:
    document = json_escaped(json.dumps([text], ensure_ascii=False))
    assert json.loads(document) == [text]
    assert not steers(document)


def test_prompt_without_a_line_end_is_shown_at_once() -> None:
    assert PrintableStream().feed(b"\r\nlogin: ") == "\nlogin: "
