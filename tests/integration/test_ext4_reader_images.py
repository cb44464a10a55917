"""Images of mke2fs and of banger, read without mounting and compared with what went into them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.ext4 import reader
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.limits import Limits
from tests.support.ext4_reader import debugfs, listing, mke2fs, needs_e2fsprogs, run, set_times
from tests.support.rootfs import archive, build, differences, directory, file, header, read_image, read_tree, symlink

pytestmark = needs_e2fsprogs

AS_ROOT = os.geteuid() == 0


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that a file system can hold, short of sockets."""
    root = tmp_path_factory.mktemp("tree")
    (root / "empty").mkdir()
    (root / "one").write_bytes(b"x")
    (root / "block").write_bytes(bytes(range(256)) * 16)
    (root / "large").write_bytes(os.urandom(700_001))
    with (root / "sparse").open("wb") as sparse:
        for at in (0, 300_000, 70_000_000, 90_000_000):
            sparse.seek(at)
            sparse.write(b"data at %d" % at)
        sparse.truncate(100_000_003)
    with (root / "fragmented").open("wb") as fragmented:
        for index in range(900):
            fragmented.seek(index * 8192)
            fragmented.write(b"%d" % index * 1000)
    (root / "short-link").symlink_to("one")
    (root / "link-59").symlink_to("y" * 59)
    (root / "link-60").symlink_to("y" * 60)
    (root / "long-link").symlink_to("z" * 1000)
    (root / "dangling").symlink_to("/nowhere")
    os.link(root / "large", root / "same-as-large")
    os.mkfifo(root / "pipe")
    odd = os.fsencode(root) + b"/\xff\xfe \n name"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    deep = root.joinpath(*["d" * 50] * 10)
    deep.mkdir(parents=True)
    (deep / "leaf").write_text("leaf")
    crowd = root / "crowd"
    crowd.mkdir()
    for index in range(700):
        (crowd / f"{index:0>100}").touch()
    (root / "one").chmod(0o4755)
    os.setxattr(root / "one", "user.small", b"value")
    os.setxattr(root / "block", "user.large", b"v" * 600)
    if AS_ROOT:
        os.mknod(root / "null", 0o020666, os.makedev(1, 3))
        os.mknod(root / "disk", 0o060660, os.makedev(259, 70000))
        os.chown(root / "large", 70000, 80000)
        os.setxattr(root / "empty", "trusted.mark", b"\0\1\2")
    set_times(root)
    return root


KINDS = {
    "default": ("-t", "ext4"),
    "blocks of 4 KiB": ("-t", "ext4", "-b", "4096"),
    "blocks of 2 KiB": ("-t", "ext4", "-b", "2048"),
    "blocks of 64 KiB": ("-t", "ext4", "-b", "65536"),
    "ext2": ("-t", "ext2"),
    "ext3, blocks of 1 KiB": ("-t", "ext3", "-b", "1024"),
    "ext4 as in 2014": ("-t", "ext4", "-O", "^64bit,^metadata_csum,uninit_bg"),
    "ext4 as of e2fsprogs 1.47": ("-t", "ext4", "-O", "metadata_csum_seed,orphan_file"),
    "ext4 without groups in order": ("-t", "ext4", "-O", "^flex_bg,large_dir"),
    "inodes of 128 bytes": ("-t", "ext4", "-I", "128"),
    "inodes of 1 KiB": ("-t", "ext4", "-I", "1024"),
    "bigalloc": ("-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"),
    "bigalloc, blocks of 1 KiB": ("-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"),
    "many groups": ("-t", "ext4", "-b", "1024", "-g", "1024", "-N", "20000"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_image_of_mke2fs_is_read_as_it_was_filled(tmp_path: Path, tree: Path, kind: str) -> None:
    image = mke2fs(tmp_path / "image", *KINDS[kind], source=tree, size="96M")
    found, expected = listing(image), read_tree(tree)
    del found[b""], expected[b""]  # mke2fs makes the root of its own accord
    assert differences(found, expected) == []


def test_image_of_banger_is_read_as_the_independent_reader_has_it(tmp_path: Path) -> None:
    members = [directory(b"d%d" % index, 0o700, uid=index) for index in range(40)]
    members += [file(b"d%d/f" % index, b"x" * index * 1000, mtime=-index) for index in range(40)]
    members += [symlink(b"l", b"t" * 200), header(b"n", b"3", device=(4095, 1048575)), header(b"p", b"6")]
    build(tmp_path, archive(*members), size_bytes=64 << 20)
    assert differences(listing(tmp_path / "rootfs.ext4"), read_image(tmp_path / "rootfs.ext4")) == []


@pytest.fixture(scope="module")
def hashed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """2500 names in one directory, in a hash tree of two levels."""
    folder = tmp_path_factory.mktemp("hashed")
    many = folder / "tree" / "many"
    many.mkdir(parents=True)
    for index in range(2500):
        (many / f"name-{index:0>60}").touch()
    image = mke2fs(folder / "image", "-t", "ext4", "-b", "1024", source=folder / "tree")
    run("e2fsck", "-fyD", image, accept=(0, 1))
    yield image
    image.unlink()


def test_directory_with_a_hash_tree_is_read_whole(hashed: Path) -> None:
    assert "Indirect levels: 1" in run("debugfs", "-R", "htree_dump /many", hashed)
    with Ext4Reader(hashed) as image:
        names = [name for name, _, _ in image.listdir(image.resolve(b"many"))]
        assert sorted(names) == [b"name-%060d" % index for index in range(2500)]
        assert image.resolve(b"/many/name-%060d" % 1234).is_file
        assert image.find(b"/many/name-%060d" % 2500) is None


def test_extents_are_those_that_debugfs_tells(tmp_path: Path, tree: Path) -> None:
    path = mke2fs(tmp_path / "image", "-t", "ext4", "-b", "1024", source=tree, size="96M")
    # "2/ 2   1/ 83   0 - 0   6441 - 6441   1": level, entry, blocks of the file, blocks of the image, length.
    lines = [line.split() for line in run("debugfs", "-R", "ex -l /fragmented", path).splitlines()[1:]]
    assert lines[0][:2] == ["2/", "2"], "the tree is flat"
    told = [(int(line[4]), int(line[7]), int(line[10])) for line in lines]
    with Ext4Reader(path) as image:
        inode = image.resolve(b"fragmented")
        assert [(e.logical, e.physical, e.length) for e in image.extents(inode)] == told


@pytest.mark.root
@pytest.mark.skipif(not AS_ROOT, reason="owners need root")
def test_image_of_banger_is_what_debugfs_dumps(tmp_path: Path) -> None:
    members = [
        directory(b"d", uid=7),
        file(b"d/f", b"data" * 5000, uid=1000, gid=50, mode=0o640),
        symlink(b"d/l", b"f"),
    ]
    build(tmp_path, archive(*members), size_bytes=64 << 20)
    (tmp_path / "out").mkdir()
    run("debugfs", "-R", f"rdump d {tmp_path}/out", tmp_path / "rootfs.ext4")
    with Ext4Reader(tmp_path / "rootfs.ext4") as image:
        dumped = read_tree(tmp_path / "out")
        found = listing(tmp_path / "rootfs.ext4")
        for path in (b"d", b"d/f"):
            assert (found[path].mode, found[path].uid, found[path].data) == (
                dumped[path].mode,
                dumped[path].uid,
                dumped[path].data,
            )
        assert image.readlink(image.resolve(b"d/l", follow=False)) == dumped[b"d/l"].data


# -- paths -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ext4Reader]:
    """An image full of links."""
    root = tmp_path_factory.mktemp("links")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/sh").write_text("shell")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("inside")
    for name, target in {
        "bin": "usr/bin",
        "absolute": "/etc/passwd",
        "up": "../../../../../etc/passwd",
        "usr/up": "../../../../etc/passwd",
        "usr/absolute": "/etc/passwd",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "dangling": "/etc/none",
        "through": "etc/passwd/more",
    }.items():
        (root / name).symlink_to(target)
    for index in range(50):
        (root / f"chain{index}").symlink_to(f"chain{index + 1}" if index < 49 else "etc/passwd")
    with Ext4Reader(mke2fs(tmp_path_factory.mktemp("image") / "image", source=root)) as image:
        yield image


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (b"/bin/sh", b"shell"),
        (b"bin//./sh", b"shell"),
        (b"bin/../bin/sh", b"shell"),
        (b"/absolute", b"inside"),
        (b"usr/absolute", b"inside"),
        (b"up", b"inside"),
        (b"usr/up", b"inside"),
        (b"../../etc/passwd", b"inside"),
        (b"usr/../../etc/passwd", b"inside"),
        (b"chain10", b"inside"),
    ],
)
def test_path_is_resolved_inside_the_image(links: Ext4Reader, path: bytes, content: bytes) -> None:
    with links.open(links.resolve(path)) as reader:
        assert reader.readall() == content


@pytest.mark.parametrize(
    "path",
    [b"none", b"loop", b"ping", b"dangling", b"through", b"etc/passwd/", b"etc/passwd/..", b"chain9", b"a" * 5000],
)
def test_path_that_leads_nowhere_is_not_found(links: Ext4Reader, path: bytes) -> None:
    assert links.find(path) is None
    with pytest.raises(BangerError) as caught:
        links.resolve(path)
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_path_of_a_link_is_the_link_itself_unless_followed(links: Ext4Reader) -> None:
    assert links.readlink(links.resolve(b"bin", follow=False)) == b"usr/bin"
    assert links.resolve(b"bin").is_directory
    assert links.resolve(b"bin/", follow=False).is_directory
    assert links.resolve(b"") == links.root == links.resolve(b"/") == links.resolve(b"/..")


def test_walk_goes_only_where_it_may(links: Ext4Reader) -> None:
    paths = [path for path, _ in links.walk(links.resolve(b"usr"), lambda path, _: path != b"bin")]
    assert paths == [b"", b"absolute", b"up"]


def test_path_that_leads_through_large_directories_over_and_over_is_refused(
    links: Ext4Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert links.resolve(b"usr/../" * 200).is_directory
    monkeypatch.setattr(reader, "_LOOKUP_BYTES", 100 * 1024)
    with pytest.raises(BangerError, match="too large"):
        links.resolve(b"usr/../" * 200)


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (Limits(entries=65), "more than 65 files"),
        (Limits(path_bytes=11), '"usr/absolute" is longer'),
    ],
)
def test_walk_of_more_than_an_image_may_hold_is_refused(
    links: Ext4Reader, monkeypatch: pytest.MonkeyPatch, limits: Limits, complaint: str
) -> None:
    everything = len(list(links.walk()))
    assert everything == 1 + 66
    monkeypatch.setattr(reader, "_LIMITS", limits)
    with pytest.raises(BangerError, match=complaint):
        list(links.walk())


# -- images that lie ---------------------------------------------------------------------------------------


def test_walk_of_a_directory_that_contains_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "tree/a/b").mkdir(parents=True)
    image = mke2fs(tmp_path / "image", source=tmp_path / "tree")
    debugfs(image, "ln a a/b/again")
    with Ext4Reader(image) as opened, pytest.raises(BangerError, match="two names"):
        list(opened.walk())


def test_directory_that_names_the_journal_is_refused(tmp_path: Path) -> None:
    image = mke2fs(tmp_path / "image", "-t", "ext4", size="32M")
    debugfs(image, "ln <8> journal")
    with Ext4Reader(image) as opened, pytest.raises(BangerError, match="inode 8, which no file can have"):
        opened.resolve(b"journal")


@pytest.mark.parametrize(
    ("request_text", "complaint"),
    [
        ("sif /f flags 0", "block|larger"),
        ("sif /f mode 0", "not in use"),
        ("sif /f links_count 0", "not in use"),
        ("sif /f flags 0x10080000", "inline_data"),
        ("sif /d size 4000", "impossible size"),
        ("sif /d size 1099511627776", "impossible size"),
        ("sif /d size 40960", "has a hole"),
        ("sif /d flags 0", "block|hole"),
        ("sif /l size 0", "impossible length"),
        ("sif /l size 5000", "impossible length"),
        ("sif /f file_acl 3000000", "block 3000000"),
        ("sif /f file_acl 2", "attributes"),
    ],
)
def test_image_with_a_lying_inode_is_refused(tmp_path: Path, request_text: str, complaint: str) -> None:
    root = tmp_path / "tree"
    (root / "d/inner").mkdir(parents=True)
    (root / "f").write_bytes(os.urandom(100_000))
    (root / "l").symlink_to("target")
    image = mke2fs(tmp_path / "image", "-t", "ext4", source=root)
    listing(image)
    debugfs(image, request_text)
    with pytest.raises(BangerError, match=complaint) as caught:
        listing(image)
    assert caught.value.kind is ErrorKind.INVALID


def test_image_with_a_file_of_absurd_size_is_read_in_pieces(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "f").write_bytes(b"data")
    image = mke2fs(tmp_path / "image", "-t", "ext4", "-b", "4096", source=root)
    debugfs(image, f"sif /f size {(1 << 44) - 1}")
    with Ext4Reader(image) as opened, opened.open(opened.resolve(b"f")) as reader:
        assert reader.read(6) == b"data\0\0"
        assert reader.seek(-1, os.SEEK_END) == (1 << 44) - 2
        assert reader.read(100) == b"\0"
    debugfs(image, f"sif /f size {(1 << 44) + 1}")
    with Ext4Reader(image) as opened, pytest.raises(BangerError, match="larger than any"):
        opened.open(opened.resolve(b"f"))


def test_image_is_never_written_to(tmp_path: Path, tree: Path) -> None:
    image = mke2fs(tmp_path / "image", source=tree, size="96M")
    image.chmod(0o400)
    before = subprocess.run(["sha256sum", image], capture_output=True, check=True).stdout
    listing(image)
    assert subprocess.run(["sha256sum", image], capture_output=True, check=True).stdout == before
