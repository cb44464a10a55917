"""Whatever a registry answers, a pull ends in the image or in an error that says why: never in a crash, never in a hang."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from tests.support.faulty_registry import Exchange, Fault, FaultyRegistry, announcing, faulty_registry
from tests.support.oci_client import Puller
from tests.support.registry import BuiltImage, Layer, Node, build_image

NAME = "test/app:1"
NUMBERS = ["²", "9" * 5000, "-1", "nan", ""]
ADDRESSES = ["http://[::1", "//x:99999999/", "http://x:²/", "ftp://a/b", "/..", "x" * 9000]
CHALLENGES = ['Bearer realm="http://[::1"', 'Bearer realm="https://²:1/"', 'Bearer realm=","', "Digest " + "a=" * 3000]
HEADERS = {
    "Content-Range": ["bytes 0-1/²", "bytes ²-5/9", "bytes 0-99999999999999999999999/1", *NUMBERS],
    "Location": ADDRESSES,
    "Retry-After": ["Mon, 23 Nov 99999999999999999999 12:00:00 GMT", *NUMBERS],
    "WWW-Authenticate": CHALLENGES,
    "Content-Type": ["application/json; charset=²", "\x01\x02", "a" * 60000],
    "Content-Encoding": ["gzip", "zstd", "br, gzip"],
    "Transfer-Encoding": ["chunked", "chunked, chunked", "identity, gzip"],
    "Docker-Content-Digest": ["sha256:²", "x" * 9000],
}
#: The status with which a header counts; with others it should not.
COUNTS_WITH = {"Content-Range": 206, "Location": 307, "Retry-After": 503, "WWW-Authenticate": 401}
STATUSES = [100, 199, 204, 206, 300, 302, 304, 307, 401, 407, 416, 426, 429, 451, 500, 503, 599, 999]
RAW = [
    b"",
    b"\r\n" * 100,
    b"\xff\xfe\x00" * 200,
    b"HTTP/9.9 200 OK\r\n\r\nx",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 2000,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(300)) + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\nabcdefg",
]


def with_header(name: str, value: str, status: int = 200) -> Fault:
    def fault(exchange: Exchange) -> None:
        body = exchange.content.body if exchange.content else b""
        exchange.begin(status, {"Content-Type": "x", "Content-Length": str(len(body)), name: value})
        exchange.wfile.write(body)
        exchange.hang_up()

    return fault


def raw(answer: bytes) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.wfile.write(answer)
        exchange.hang_up()

    return fault


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    return build_image([Layer({"file": Node(b"content" * 500, mode=0o644)})])


@pytest.fixture(scope="module")
def registry(image: BuiltImage) -> Iterator[FaultyRegistry]:
    with faulty_registry() as registry:
        registry.serve(NAME, image)
        yield registry


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize(
    "faults",
    [
        *(
            pytest.param([with_header(name, value, COUNTS_WITH.get(name, 200)) for value in values], id=name)
            for name, values in HEADERS.items()
        ),
        pytest.param([announcing(number) for number in NUMBERS], id="Content-Length"),
        pytest.param([with_header("Location", "/v2/", status) for status in STATUSES], id="statuses that redirect"),
        pytest.param([with_header("WWW-Authenticate", CHALLENGES[0], 401), *(map(raw, RAW))], id="no HTTP"),
    ],
)
def test_pull_from_a_registry_that_answers_oddly_ends_in_the_image_or_an_error(
    registry: FaultyRegistry, tmp_path: Path, where: str, faults: list[Fault]
) -> None:
    for number, fault in enumerate(faults):
        registry.only(where, fault)
        puller = Puller(tmp_path / str(number))
        try:
            puller.pull(registry.reference(NAME))
        except BangerError as error:
            assert error.kind is not ErrorKind.INTERNAL
            assert str(error).isprintable()
            assert puller.partial() == [] or error.kind is ErrorKind.UNAVAILABLE
