"""Layers to images by the real tools; every image here has also passed e2fsck, which the builder always runs."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import zstandard

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.units import GIB, MIB
from banger.rootfs.build import Layer, build_from_directory, build_rootfs
from banger.rootfs.disk import make_disk
from banger.rootfs.ext4.blocks import BlockBitmaps
from banger.rootfs.ext4.geometry import Geometry
from tests.support.rootfs import (
    FIXED_UUID,
    MTIME,
    Listing,
    archive,
    build,
    built,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    pax,
    read_image,
    symlink,
    write_layers,
    xattrs,
)

pytestmark = pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None, reason="e2fsprogs is not installed"
)

OPERATION = "image.pull"


def operation() -> Operation:
    return Operation(OPERATION, "test")


# -- what goes in comes out ------------------------------------------------------------------------------------


def test_image_has_just_what_its_layer_says(tmp_path: Path) -> None:
    found = built(
        tmp_path,
        archive(
            directory(b".", mode=0o711, uid=3, gid=4),
            directory(b"d", mode=0o1777),
            file(b"d/set", b"program", mode=0o6755, uid=3_000_000, gid=2**32 - 2),
            header(b"null", b"3", mode=0o666, device=(1, 3)),
            header(b"loop", b"4", mode=0o660, device=(300, 70_000)),
            header(b"pipe", b"6", mode=0o600),
        ),
    )

    assert sorted(found) == [b"", b"d", b"d/set", b"loop", b"null", b"pipe"]
    assert (found[b""].mode, found[b""].uid, found[b""].gid) == (0o711, 3, 4)
    assert found[b"d"].mode == 0o1777
    program = found[b"d/set"]
    assert (program.mode, program.uid, program.gid, program.data) == (0o6755, 3_000_000, 2**32 - 2, b"program")
    assert program.mtime_ns == MTIME * 10**9
    assert (found[b"null"].kind, found[b"null"].device) == (stat.S_IFCHR, (1, 3))
    assert (found[b"loop"].kind, found[b"loop"].device) == (stat.S_IFBLK, (300, 70_000))
    assert found[b"pipe"].kind == stat.S_IFIFO


@pytest.mark.parametrize("size", [1, 59, 60, 61, 4095])
def test_image_symlink_of_any_length_is_kept(tmp_path: Path, size: int) -> None:
    found = built(tmp_path, archive(symlink(b"l", b"t" * size)))

    assert (found[b"l"].data, found[b"l"].size, found[b"l"].mode) == (b"t" * size, size, 0o777)


@pytest.mark.parametrize("time", [b"-5.5", b"0", b"1700000000.123456789", b"2147483648", b"8589934592.000000001"])
def test_image_times_keep_their_nanoseconds(tmp_path: Path, time: bytes) -> None:
    found = built(tmp_path, archive(pax((b"mtime", time)), file(b"a")))

    seconds, _, decimals = time.partition(b".")
    sign = -1 if time.startswith(b"-") else 1
    assert found[b"a"].mtime_ns == int(seconds) * 10**9 + sign * int(decimals.ljust(9, b"0") or 0)


def test_image_names_are_bytes(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"n" * 255, b"new\nline", "é".encode(), b"\x80" * 100]

    found = built(tmp_path, archive(*(gnu_long(name) + file(b"-") for name in names)))

    assert sorted(found) == sorted([b"", *names])


def test_image_attributes_are_kept_inside_and_outside_the_inode(tmp_path: Path) -> None:
    acl = bytes.fromhex("02000000 01000700ffffffff 020005000a000000 04000500ffffffff 10000500ffffffff 20000500ffffffff")
    wanted: list[dict[bytes, bytes]] = [
        {b"security.capability": bytes.fromhex("0100000200200000000000000000000000000000")},
        {b"user.large": b"v" * 3000, b"user.a": b"1"},
        {b"user.%d" % index: b"x" * index for index in range(1, 60)},
        {b"system.posix_acl_access": acl, b"user.\xc3\xa9": b"\0\xff"},
        {b"user." + b"n" * 255: b"v", b"trusted.t": b"w"},
    ]
    members = [xattrs(values) + file(b"f%d" % index) for index, values in enumerate(wanted)]

    found = built(tmp_path, archive(*members, xattrs({b"system.posix_acl_default": acl}), directory(b"d")))

    assert [found[b"f%d" % index].xattrs for index in range(len(wanted))] == wanted
    assert found[b"d"].xattrs == {b"system.posix_acl_default": acl}


def test_image_hard_links_share_an_inode_across_layers(tmp_path: Path) -> None:
    found = built(
        tmp_path,
        archive(file(b"a", b"data"), hard_link(b"b", b"a")),
        archive(hard_link(b"c", b"b"), file(b".wh.a")),
    )

    assert (found[b"b"].links, found[b"c"].links, found[b"c"].same_as) == (2, 2, b"b")
    assert found[b"c"].data == b"data"


def test_image_directory_of_twenty_thousand_entries(tmp_path: Path) -> None:
    found = built(tmp_path, archive(*(file(b"d/%d" % index) for index in range(20_000))), size_bytes=GIB)

    assert len(found) == 20_002


@pytest.mark.slow
def test_image_directory_with_more_subdirectories_than_links_can_count(tmp_path: Path) -> None:
    found = built(tmp_path, archive(*(directory(b"d/%d" % index) for index in range(65_001))), size_bytes=2 * GIB)

    assert len(found) == 65_003


def test_image_path_nested_a_thousand_deep(tmp_path: Path) -> None:
    deep = b"d/" * 1000 + b"f"

    found = built(tmp_path, archive(gnu_long(deep), file(b"-", b"deep")))

    assert found[deep].data == b"deep"


def test_image_of_a_file_in_thousands_of_extents(tmp_path: Path) -> None:
    """Data and holes in turn: more extents than one level of tree blocks can hold."""
    pieces = b"".join(b"%08d" % index + bytes(128 * 1024 - 8) for index in range(1400))

    found = built(tmp_path, archive(file(b"sparse", pieces)), size_bytes=512 * MIB)

    assert found[b"sparse"].data == pieces


def test_image_zeros_take_no_room(tmp_path: Path) -> None:
    stats = build(tmp_path, archive(file(b"zeros", bytes(32 * MIB)), file(b"more", b"x" + bytes(MIB))))

    assert stats.file_bytes == 33 * MIB + 1
    assert stats.disk_bytes < 3 * MIB


def test_image_without_files_is_an_empty_root(tmp_path: Path) -> None:
    assert list(built(tmp_path, archive())) == [b""]


def test_image_keeps_a_lost_and_found_of_its_own(tmp_path: Path) -> None:
    assert built(tmp_path, archive(file(b"lost+found", b"just a file")))[b"lost+found"].data == b"just a file"


@pytest.mark.parametrize("size", [16 * MIB, 1000 * MIB, 10 * GIB, 10 * GIB + 4096 * 5000])
def test_free_blocks_are_those_that_dumpe2fs_shows(tmp_path: Path, size: int) -> None:
    make_disk(tmp_path / "disk", size)
    shown = subprocess.run(["/usr/sbin/dumpe2fs", tmp_path / "disk"], capture_output=True, text=True, check=True).stdout
    expected: set[range] = set()
    for line in re.findall(r"^  Free blocks: (.+)$", shown, re.MULTILINE):
        bounds = (piece.partition("-") for piece in line.split(", "))
        expected |= {range(int(first), int(last or first) + 1) for first, _, last in bounds}

    with (tmp_path / "disk").open("rb") as image:
        found = list(BlockBitmaps(image.fileno(), Geometry(image.fileno())).free_runs())

    assert found == joined_ranges(expected)


def joined_ranges(pieces: set[range]) -> list[tuple[int, int]]:
    """Ranges as runs of first block and count; dumpe2fs cuts them at every block group."""
    runs: list[tuple[int, int]] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if runs and sum(runs[-1]) == piece.start:
            runs[-1] = (runs[-1][0], runs[-1][1] + len(piece))
        else:
            runs.append((piece.start, len(piece)))
    return runs


# -- how it is done ---------------------------------------------------------------------------------------------


LAYERS = [archive(*(file(b"%d/%d" % (layer, index), os.urandom(100_000)) for index in range(60))) for layer in range(3)]


@pytest.mark.parametrize(
    "layers",
    [[], [b""], [zstandard.ZstdCompressor().compress(file(b"a")), b""]],
    ids=["none", "of no bytes", "no end marker"],
)
def test_build_of_layers_with_nothing_in_them_or_none_at_all_gives_a_root(tmp_path: Path, layers: list[bytes]) -> None:
    listing = built(tmp_path, *layers)

    assert set(listing) - {b"lost+found"} == ({b"", b"a"} if any(layers) else {b""})
    assert (listing[b""].mode & 0o7777, listing[b""].uid) == (0o755, 0)


def test_build_of_equal_layers_gives_equal_bytes(tmp_path: Path) -> None:
    images = set()
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        build(folder, *LAYERS, size_bytes=128 * MIB)
        images.add((folder / "rootfs.ext4").read_bytes())

    assert len(images) == 1


def test_build_of_compressed_layers_gives_the_bytes_of_plain_ones(tmp_path: Path) -> None:
    images = set()
    for name, pack in {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}.items():
        path = tmp_path / name
        path.write_bytes(pack(LAYERS[0]))
        build_rootfs(
            [Layer(path, path.stat().st_size)],
            tmp_path / "rootfs.ext4",
            operation=operation(),
            size_bytes=64 * MIB,
            reserved_uuid=FIXED_UUID,
        )
        images.add((tmp_path / "rootfs.ext4").read_bytes())

    assert len(images) == 1


def test_build_reports_its_two_steps_and_the_bytes_consumed(tmp_path: Path) -> None:
    layers = write_layers(tmp_path, LAYERS, compress=True)
    running = operation()

    stats = build_rootfs(layers, tmp_path / "rootfs.ext4", operation=running)

    total = sum(layer.compressed_bytes for layer in layers)
    assert [(step.name, step.done, step.total) for step in running.steps] == [
        ("write file system", total, total),
        ("check file system", 0, None),
    ]
    assert stats.size_bytes == (tmp_path / "rootfs.ext4").stat().st_size == 2 * GIB
    assert stats.entries == 1 + 3 + 180
    assert stats.file_bytes == 180 * 100_000
    assert stats.file_bytes < stats.disk_bytes < 2 * stats.file_bytes


def test_build_reads_a_layer_from_a_pipe(tmp_path: Path) -> None:
    producer = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert producer.stdin is not None
    with producer, producer.stdout:
        feeder = threading.Thread(target=lambda: (producer.stdin.write(LAYERS[0]), producer.stdin.close()))
        feeder.start()
        stats = build_rootfs([Layer(stream=producer.stdout)], tmp_path / "rootfs.ext4", operation=operation())
        feeder.join()

    assert stats.size_bytes == 4 * GIB
    assert len(read_image(tmp_path / "rootfs.ext4")) == 62


def test_build_grows_until_the_content_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banger.rootfs.build._MIN_BYTES", 16 * MIB)
    monkeypatch.setattr("banger.rootfs.build._GENEROSITY", 1)
    layers = write_layers(tmp_path, [archive(file(b"text", b"compressible " * 3_000_000))], compress=True)

    stats = build_rootfs(layers, tmp_path / "rootfs.ext4", operation=operation())

    assert stats.size_bytes == 64 * MIB
    assert read_image(tmp_path / "rootfs.ext4")[b"text"].size == 39_000_000


def test_build_with_more_files_than_inodes_grows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("banger.rootfs.build._MIN_BYTES", 16 * MIB)
    monkeypatch.setattr("banger.rootfs.build._GENEROSITY", 1)
    layers = write_layers(tmp_path, [archive(*(symlink(b"%d" % index, b"x") for index in range(3000)))], compress=True)

    assert build_rootfs(layers, tmp_path / "rootfs.ext4", operation=operation()).entries == 3001


def test_build_replaces_an_older_file(tmp_path: Path) -> None:
    (tmp_path / "rootfs.ext4").write_bytes(b"left by a crash")

    assert b"a" in built(tmp_path, archive(file(b"a")))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_build_needs_no_privileges() -> None:
    # Privileges are dropped after the imports: the interpreter may lie where others can't read.
    script = (
        "import os, sys; from pathlib import Path; from banger.core.operation import Operation\n"
        "from banger.rootfs.build import Layer, build_rootfs\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "build_rootfs([Layer(Path(sys.argv[1]))], Path(sys.argv[2]), operation=Operation('a', 'b'))"
    )
    # Not below tmp_path: pytest closes that to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        [layer] = write_layers(folder, [archive(file(b"a", uid=3_000_000), header(b"n", b"3", device=(1, 3)))])
        os.chown(folder, 65534, 65534)
        subprocess.run(
            [sys.executable, "-c", script, str(layer.path), str(folder / "rootfs.ext4")],
            check=True,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )

        assert (folder / "rootfs.ext4").stat().st_uid == 65534
        assert read_image(folder / "rootfs.ext4")[b"a"].uid == 3_000_000


# -- a directory of the host ------------------------------------------------------------------------------------


def test_directory_becomes_an_image_owned_by_root(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "kernel" / "fs").mkdir(parents=True)
    (source / "kernel" / "fs" / "ext4.ko").write_bytes(b"module" * 50_000)
    (source / "kernel" / "fs" / "ext4.ko").chmod(0o4755)
    (source / "build").symlink_to("/etc")
    os.utime(source / "kernel", ns=(5, 123_456_789))

    stats = build_from_directory(source, tmp_path / "modules.ext4", operation=operation(), size_bytes=64 * MIB)

    found: Listing = read_image(tmp_path / "modules.ext4")
    assert sorted(found) == [b"", b"build", b"kernel", b"kernel/fs", b"kernel/fs/ext4.ko"]
    assert found[b"build"].data == b"/etc"
    module = found[b"kernel/fs/ext4.ko"]
    assert (module.mode, module.uid, module.data) == (0o755, 0, b"module" * 50_000)
    assert found[b"kernel"].mtime_ns == 123_456_789
    assert stats.entries == 5


def test_directory_with_a_socket_or_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    os.mkfifo(tmp_path / "source" / "pipe")

    with pytest.raises(BangerError) as caught:
        build_from_directory(tmp_path / "source", tmp_path / "x.ext4", operation=operation())

    assert caught.value.kind is ErrorKind.INVALID
    assert not (tmp_path / "x.ext4").exists()
