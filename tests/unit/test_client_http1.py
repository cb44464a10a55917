"""The response parser takes bytes in any cut, and refuses what is not the HTTP that our daemon speaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.client.http1 import MAX_HEAD, ProtocolError, ResponseParser, encode_chunk, encode_head


def parse(data: bytes, step: int = 1 << 30) -> tuple[ResponseParser, bytes]:
    parser = ResponseParser()
    body = b"".join(parser.feed(data[i : i + step]) for i in range(0, len(data), step))
    return parser, body


def chunked(*pieces: bytes, trailer: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    return head + b"".join(map(encode_chunk, pieces)) + b"0\r\n" + trailer + b"\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 60))
def test_chunked_body_in_any_cut_is_reassembled(pieces: list[bytes], step: int) -> None:
    parser, body = parse(chunked(*pieces), step)
    assert body == b"".join(pieces)
    assert parser.complete
    assert (parser.status, parser.headers["x-a"]) == (200, "b")


@given(st.binary(max_size=100), st.integers(1, 60))
def test_body_of_known_length_in_any_cut_is_reassembled(body: bytes, step: int) -> None:
    parser, got = parse(b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body), step)
    assert (parser.status, got, parser.complete) == (404, body, True)


def test_body_without_length_ends_with_the_connection() -> None:
    parser, body = parse(b"HTTP/1.0 200 OK\r\n\r\nall of it")
    assert body == b"all of it"
    assert not parser.complete
    parser.end_of_stream()
    assert parser.complete


def test_interim_answer_is_skipped() -> None:
    parser, body = parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 7)
    assert (parser.status, body) == (200, b"ok")


def test_chunk_extension_and_trailers_are_ignored() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    parser, body = parse(data, 3)
    assert (body, parser.complete) == (b"ok", True)


def test_answer_without_content_has_no_body() -> None:
    parser, _ = parse(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert parser.complete


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-dropbear\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nName : value\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n123456789\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 300,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (MAX_HEAD + 1),
    ],
)
def test_malformed_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(data, 50)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", chunked(b"abc")[:-1]])
def test_answer_cut_short_is_refused(data: bytes) -> None:
    parser, _ = parse(data)
    with pytest.raises(ProtocolError, match="in the middle"):
        parser.end_of_stream()


def test_request_head_is_exact() -> None:
    assert (
        encode_head("GET", "/v1/vms", {"Accept": "a/b"})
        == b"GET /v1/vms HTTP/1.1\r\nHost: banger\r\nAccept: a/b\r\n\r\n"
    )


def test_empty_chunk_is_left_out_as_it_would_end_the_body() -> None:
    assert encode_chunk(b"") == b""
