"""Bytes of good images changed at random: whatever comes, it is an answer or a refusal, and it comes soon."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.lint.rootfs import lint_rootfs
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.tree_tar import TreeTar
from tests.support.ext4_reader import mke2fs, needs_e2fsprogs, set_times

pytestmark = needs_e2fsprogs

#: For one damaged image; a sound one takes a few milliseconds.
PATIENCE_S = 10.0
_BLOCK = 1024


class Victim:
    """An image whose metadata can be changed and put right again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.original = path.read_bytes()
        blocks = range(0, len(self.original), _BLOCK)
        # The superblock is where random changes would be refused at once; it has its own test.
        self.targets = [at for at in blocks if at >= 2048 and any(self.original[at : at + _BLOCK])]

    def damaged(self, changes: list[tuple[int, bytes]]) -> None:
        """Write the changes, read all there is, and undo them."""
        with self.path.open("r+b", buffering=0) as file:
            for offset, data in changes:
                os.pwrite(file.fileno(), data, offset)
            try:
                self.read()
            finally:
                for offset, data in changes:
                    os.pwrite(file.fileno(), self.original[offset : offset + len(data)], offset)

    def read(self) -> None:
        """Everything that banger does with an image; a refusal is fine, but nothing else."""
        started = time.monotonic()
        for use in (self._archive, self._look_up, self._lint):
            try:
                with Ext4Reader(self.path) as image:
                    use(image)
            except BangerError as error:
                assert error.kind in (ErrorKind.INVALID, ErrorKind.NOT_FOUND)
        assert time.monotonic() - started < PATIENCE_S

    @staticmethod
    def _archive(image: Ext4Reader) -> None:
        for chunk in TreeTar(image, max_bytes=64 << 20).chunks():
            assert len(chunk) <= 1 << 20

    @staticmethod
    def _look_up(image: Ext4Reader) -> None:
        for path in (b"etc/passwd", b"link/../link/passwd", b"crowd/%098d" % 50, b"deep/" + b"d/" * 20):
            image.resolve(path)

    @staticmethod
    def _lint(image: Ext4Reader) -> None:
        lint_rootfs(image)


def tree(root: Path) -> Path:
    """Something of everything, in few blocks."""
    for name in ("etc", "bin", "crowd", "deep/" + "d/" * 20):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/os-release").write_text('PRETTY_NAME="Fuzz"\n')
    (root / "bin/sh").write_bytes(Path("/bin/true").read_bytes()[:8192])
    (root / "bin/sh").chmod(0o755)
    (root / "link").symlink_to("etc")
    (root / "long").symlink_to("x" * 200)
    for index in range(60):
        (root / f"crowd/{index:0>98}").touch()
    with (root / "pieces").open("wb") as pieces:
        for index in range(400):
            pieces.seek(index * 4096)
            pieces.write(b"p")
    os.link(root / "pieces", root / "again")
    os.setxattr(root / "etc/passwd", "user.a", b"small")
    os.setxattr(root / "etc", "user.b", b"large" * 100)
    set_times(root)
    return root


@pytest.fixture(scope="module", params=["ext4", "ext3"])
def victim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """One small image per kind of block list."""
    folder = tmp_path_factory.mktemp("fuzz")
    kind = ["-t", request.param, "-b", "1024", "-O", "^has_journal,^resize_inode", "-N", "160"]
    return Victim(mke2fs(folder / "image", *kind, source=tree(folder / "tree"), size="2M"))


patches = st.tuples(
    st.integers(0, 1 << 30),
    st.integers(0, _BLOCK - 8),
    st.one_of(
        st.binary(min_size=1, max_size=2),
        st.sampled_from(
            [bytes(4), b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0", b"\x02\0\0\0", b"\x0c\0\0\0"]
        ),
        st.integers(0, 2100).map(lambda block: block.to_bytes(4, "little")),
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(patches, min_size=1, max_size=12))
def test_image_with_changed_bytes_is_read_or_refused(victim: Victim, changes: list[tuple[int, int, bytes]]) -> None:
    count = len(victim.targets)
    victim.damaged([(victim.targets[which % count] + offset // 4 * 4, data) for which, offset, data in changes])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(1024, 2040), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4))
def test_image_with_a_changed_superblock_is_read_or_refused(victim: Victim, changes: list[tuple[int, bytes]]) -> None:
    victim.damaged(changes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30)), min_size=1, max_size=3))
def test_image_with_blocks_in_each_others_place_is_read_or_refused(
    victim: Victim, pairs: list[tuple[int, int]]
) -> None:
    count = len(victim.targets)
    places = [(victim.targets[to % count], victim.targets[source % count]) for to, source in pairs]
    victim.damaged([(to, victim.original[source : source + _BLOCK]) for to, source in places])


def test_image_cut_anywhere_is_read_or_refused(victim: Victim, tmp_path: Path) -> None:
    short = tmp_path / "short"
    for size in range(0, len(victim.original), 50_021):
        short.write_bytes(victim.original[:size])
        with pytest.raises(BangerError) as caught:
            Ext4Reader(short)
        assert caught.value.kind is ErrorKind.INVALID


def test_image_cut_while_it_is_open_is_refused(victim: Victim, tmp_path: Path) -> None:
    shrinking = tmp_path / "image"
    shrinking.write_bytes(victim.original)
    with Ext4Reader(shrinking) as image:
        os.truncate(shrinking, 4096)
        with pytest.raises(BangerError, match="shorter"):
            list(image.walk())
