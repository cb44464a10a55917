"""Images made of layers that are still arriving: what was read counts only if the transfer confirms it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.units import MIB
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.parallel_layers import StaleLayerError
from tests.support.ext4_reader import listing, needs_e2fsprogs
from tests.support.rootfs import archive, file

pytestmark = needs_e2fsprogs

MISMATCH = BangerError(ErrorKind.INVALID, "the digest is another")
GOOD = archive(file(b"a", b"good" * 5000))
OTHER = archive(file(b"a", b"evil" * 5000), file(b"b", b"evil"))
LARGE = archive(file(b"a", b"x" * 20 * MIB))


class Attempt(io.BytesIO):
    """One reading of the layer; ``failure`` is what confirming it raises."""

    def __init__(self, data: bytes, failure: Exception | None = None) -> None:
        super().__init__(data)
        self._failure = failure

    def confirm(self) -> None:
        if self._failure is not None:
            raise self._failure


class Arriving:
    """Gives each attempt in turn, and remembers when it was waited for."""

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self._attempts = list(attempts)
        self.told: list[str] = []

    @contextmanager
    def open(self, check: Callable[[], None]) -> Iterator[Attempt]:
        self.told.append("read")
        yield self._attempts.pop(0)

    def wait(self, check: Callable[[], None]) -> None:
        self.told.append("waited")


def built(folder: Path, arriving: Arriving, size_bytes: int = 0) -> Path:
    target = folder / "rootfs.ext4"
    operation = Operation("image.pull", "test")
    build_rootfs([Layer(arriving=arriving)], target, operation=operation, size_bytes=size_bytes)
    return target


def test_layer_that_turned_out_another_is_read_again_once_it_is_verified(tmp_path: Path) -> None:
    arriving = Arriving([Attempt(OTHER, StaleLayerError()), Attempt(GOOD)])

    image = built(tmp_path, arriving)

    found = listing(image)
    assert found[b"a"].data == b"good" * 5000
    assert b"b" not in found
    assert b"evil" not in image.read_bytes()
    assert arriving.told == ["read", "waited", "read"]


@pytest.mark.parametrize(
    ("data", "size_bytes"),
    [
        pytest.param(GOOD, 0, id="a good archive"),
        pytest.param(b"no archive at all" * 100, 0, id="no archive"),
        pytest.param(LARGE, 16 * MIB, id="one that does not fit"),
    ],
)
def test_transfer_that_fails_at_its_end_is_what_the_build_fails_with(
    tmp_path: Path, data: bytes, size_bytes: int
) -> None:
    with pytest.raises(BangerError) as caught:
        built(tmp_path, Arriving([Attempt(data, MISMATCH)]), size_bytes)

    assert caught.value is MISMATCH
    assert list(tmp_path.iterdir()) == []


def test_archive_that_is_bad_and_confirmed_is_reported_as_bad(tmp_path: Path) -> None:
    with pytest.raises(BangerError, match="the layer is not acceptable"):
        built(tmp_path, Arriving([Attempt(b"no archive at all" * 100)]))
