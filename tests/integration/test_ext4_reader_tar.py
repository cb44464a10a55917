"""An image as an archive: what banger, and other readers of tar, make of it."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.tree_tar import ChunkStream, TarStats, TreeTar, empty_tar
from tests.support.ext4_reader import debugfs, listing, mke2fs, needs_e2fsprogs, set_times
from tests.support.rootfs import (
    archive,
    build,
    differences,
    directory,
    file,
    hard_link,
    header,
    pax,
    read_tree,
    symlink,
    xattrs,
)

pytestmark = needs_e2fsprogs

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
LONG = b"very/" + b"long-name-" * 25
ODD = b"\xff\xfe\n=odd"


def everything() -> bytes:
    """An archive of whatever an archive can say."""
    return archive(
        directory(b"./", 0o711, uid=3, gid=4, mtime=-100),
        directory(b"d", 0o3775, uid=2_000_000_000, gid=4_000_000_000),
        pax((b"mtime", b"-1.000000001")),
        file(b"d/f", b"data" * 1000, mode=0o4755),
        pax((b"mtime", b"12345678901.5")),
        file(b"late"),
        file(b"sparse", bytes(200_000) + b"end", uid=8**7),
        file(b"empty", mtime=0),
        pax((b"path", LONG)),
        file(b"cut", b"long"),
        file(ODD, b"odd"),
        pax((b"path", ODD * 30)),
        file(b"cut", b"longer"),
        symlink(b"link", b"d/f"),
        symlink(b"long-link", b"t" * 3000),
        hard_link(b"again", b"d/f"),
        hard_link(b"zz", b"link"),
        xattrs(
            {
                b"user.a": b"1",
                b"security.capability": CAPABILITY,
                b"user.\xff": b"\0\n=",
                b"user.large": b"l" * 900,
            }
        ),
        file(b"with-xattrs"),
        xattrs({b"trusted.d": b"d"}),
        directory(b"e"),
        header(b"null", b"3", device=(1, 3), mode=0o666),
        header(b"disk", b"4", device=(4095, 1048575)),
        header(b"pipe", b"6", mode=0o600),
    )


def tar_of(path: Path, start: bytes = b"") -> tuple[bytes, TarStats]:
    with Ext4Reader(path) as image:
        target = io.BytesIO()
        stats = TreeTar(image, image.resolve(start)).write_to(target)
        return target.getvalue(), stats


def folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def test_tar_of_an_image_builds_the_same_image_again(tmp_path: Path) -> None:
    first, second = folder(tmp_path, "first"), folder(tmp_path, "second")
    build(first, everything(), size_bytes=64 << 20)
    data, stats = tar_of(first / "rootfs.ext4")
    build(second, data, size_bytes=64 << 20)
    before, after = listing(first / "rootfs.ext4"), listing(second / "rootfs.ext4")
    assert differences(before, after) == []
    assert len(before) == stats.entries == 19
    assert tar_of(second / "rootfs.ext4")[0] == data


def test_tar_is_the_same_however_the_image_is_laid_out(tmp_path: Path) -> None:
    root = folder(tmp_path, "tree")
    for index in range(300):
        (root / f"{index * 7919 % 300:0>100}").write_bytes(b"%d" % index)
    set_times(root)
    os.utime(root, (0, 0))
    kinds = (("-t", "ext4"), ("-t", "ext4", "-b", "1024", "-I", "128"), ("-t", "ext2", "-g", "2048", "-b", "1024"))
    digests = set()
    for number, kind in enumerate(kinds):
        image = mke2fs(tmp_path / str(number), *kind, source=root)
        debugfs(
            image,
            "sif / mtime @0",
            "sif / mtime_extra 0" if "128" not in kind else "sif / atime @0",
            "rmdir lost+found",
        )
        digests.add(hashlib.sha256(tar_of(image)[0]).hexdigest())
    assert len(digests) == 1


def test_tar_is_understood_by_pythons_own_reader(tmp_path: Path) -> None:
    build(tmp_path, everything(), size_bytes=64 << 20)
    data, stats = tar_of(tmp_path / "rootfs.ext4")
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as opened:
        members = {os.fsencode(member.name): member for member in opened}
        content = {name: opened.extractfile(member) for name, member in members.items() if member.isreg()}
        assert content[LONG].read() == b"long"  # type: ignore[union-attr]
        assert content[ODD * 30].read() == b"longer"  # type: ignore[union-attr]
    assert len(members) == stats.entries
    assert members[b"d"].uid == 2_000_000_000
    assert members[b"late"].mtime == 12345678901.5
    assert members[b"disk"].devmajor == 4095
    assert members[b"again"].isreg()
    assert (members[b"d/f"].islnk(), members[b"d/f"].linkname) == (True, "again")
    assert members[b"long-link"].linkname == "t" * 3000


def test_tar_of_a_directory_has_paths_relative_to_it(tmp_path: Path) -> None:
    build(tmp_path, everything(), size_bytes=64 << 20)
    data, stats = tar_of(tmp_path / "rootfs.ext4", b"/d")
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert [(member.name, member.mode) for member in opened] == [(".", 0o3775), ("f", 0o4755)]
    assert (stats.entries, stats.file_bytes) == (2, 4000)


def test_tar_leaves_out_what_a_layer_cannot_hold(tmp_path: Path) -> None:
    root = folder(tmp_path, "tree")
    for name in (".wh.gone", "socket", "kept"):
        (root / name).touch()
    (root / ".wh..wh.dir").mkdir()
    (root / ".wh..wh.dir" / "inner").touch()
    os.setxattr(root / "kept", "user.a=b", b"no")
    os.setxattr(root / "kept", "user.empty", b"")
    os.setxattr(root / "kept", "user.kept", b"yes")
    image = mke2fs(tmp_path / "image", "-t", "ext4", source=root)
    debugfs(image, "sif /socket mode 0140755", "rmdir lost+found")
    data, stats = tar_of(image)
    assert stats.left_out == 5
    build(tmp_path, data, size_bytes=64 << 20)
    found = listing(tmp_path / "rootfs.ext4")
    assert sorted(found) == [b"", b"kept"]
    assert found[b"kept"].xattrs == {b"user.kept": b"yes"}


def test_tar_of_more_than_is_allowed_is_refused_before_it_is_written(tmp_path: Path) -> None:
    build(tmp_path, archive(file(b"a", bytes(1000)), file(b"b", bytes(1000))), size_bytes=64 << 20)
    with Ext4Reader(tmp_path / "rootfs.ext4") as image:
        assert TreeTar(image, max_bytes=2000).write_to(io.BytesIO()).file_bytes == 2000
        with pytest.raises(BangerError, match='with "b" the files hold more') as caught:
            TreeTar(image, max_bytes=1999).write_to(io.BytesIO())
    assert caught.value.kind is ErrorKind.INVALID


def test_tar_of_a_huge_sparse_file_is_refused_at_once(tmp_path: Path) -> None:
    build(tmp_path, archive(file(b"a", b"x")), size_bytes=64 << 20)
    debugfs(tmp_path / "rootfs.ext4", f"sif /a size {1 << 43}")
    with Ext4Reader(tmp_path / "rootfs.ext4") as image, pytest.raises(BangerError, match="hold more"):
        TreeTar(image).write_to(io.BytesIO())


def test_tar_that_is_cancelled_stops_at_the_next_piece(tmp_path: Path) -> None:
    build(tmp_path, archive(file(b"a", bytes(4 << 20))), size_bytes=64 << 20)
    token = CancelToken()
    with Ext4Reader(tmp_path / "rootfs.ext4") as image:
        chunks = TreeTar(image, token=token).chunks()
        for _ in range(4):
            next(chunks)
        token.cancel("enough")
        with pytest.raises(BangerError) as caught:
            next(chunks)
    assert caught.value.kind is ErrorKind.CANCELLED


def test_empty_tar_is_a_root_directory_and_nothing_else() -> None:
    with tarfile.open(fileobj=io.BytesIO(empty_tar(0o700))) as opened:
        (member,) = opened.getmembers()
    assert (member.name, member.isdir(), member.mode, member.uid, member.mtime) == (".", True, 0o700, 0, 0)


def test_chunk_stream_gives_all_bytes_in_any_portions() -> None:
    chunks = [b"", b"abc", b"", b"d" * 1000, b"e"]
    assert ChunkStream(iter(chunks)).readall() == b"".join(chunks)
    stream = ChunkStream(iter(chunks))
    assert stream.read(2) + stream.read(2) + stream.read(2000) + stream.read(5) == b"".join(chunks)
    assert stream.read(5) == b""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
def test_tar_unpacked_by_gnu_tar_is_the_image(tmp_path: Path) -> None:
    build(tmp_path, everything(), size_bytes=64 << 20)
    (tmp_path / "image.tar").write_bytes(tar_of(tmp_path / "rootfs.ext4")[0])
    out = folder(tmp_path, "out")
    options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    subprocess.run(["tar", "-C", out, *options, "-xf", tmp_path / "image.tar"], check=True, capture_output=True)
    expected = listing(tmp_path / "rootfs.ext4")
    found = read_tree(out)
    assert differences(found, expected) == []
