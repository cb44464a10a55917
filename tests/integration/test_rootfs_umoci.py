"""The same layers through banger and through umoci, compared down to every attribute of every file."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.oci_layout import Layer, write_layout
from tests.support.rootfs import (
    Listing,
    archive,
    build,
    differences,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    mounted,
    pax,
    read_image,
    read_tree,
    symlink,
    xattrs,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.registry,
    pytest.mark.skipif(os.geteuid() != 0, reason="unpacking owners and devices takes root"),
    pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed"),
]

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

BASE = archive(
    directory(b"./"),
    directory(b"bin", mode=0o755),
    file(b"bin/su", b"\x7fELF" * 5000, mode=0o4755),
    file(b"bin/tool", b"tool" * 40_000, mode=0o755, uid=10, gid=20),
    hard_link(b"bin/alias", b"bin/tool"),
    hard_link(b"bin/second", b"/bin/alias"),
    xattrs({b"security.capability": CAPABILITY, b"user.note": b"n" * 500}) + file(b"bin/ping", b"p"),
    directory(b"etc"),
    file(b"etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
    file(b"etc/shadow", b"root:*:::::::\n", mode=0o640, gid=42),
    directory(b"dev"),
    header(b"dev/null", b"3", mode=0o666, device=(1, 3)),
    header(b"dev/far", b"4", mode=0o660, device=(300, 70_000)),
    header(b"run/fifo", b"6", mode=0o600),
    directory(b"tmp", mode=0o1777),
    directory(b"usr"),
    directory(b"usr/lib"),
    symlink(b"lib", b"usr/lib"),
    file(b"lib/through-a-link", b"x"),
    symlink(b"usr/long", b"t" * 3000),
    directory(b"var"),
    directory(b"var/cache"),
    *(file(b"var/cache/%d" % index, b"%d" % index * index) for index in range(300)),
    directory(b"opt"),
    file(b"opt/old", b"old"),
    pax((b"mtime", b"1234567890.123456789")) + file(b"opt/precise", b"t"),
    gnu_long(b"opt/" + b"n" * 255) + file(b"-", b"long name"),
    file(b"opt/\xff\xfe", b"no utf-8", uid=3_000_000, gid=4_000_000),
    file(b"opt/holes", b"a" + bytes(1 << 20) + b"z"),
)
CHANGES = archive(
    directory(b"bin"),
    file(b"bin/.wh.tool"),
    file(b"bin/su", b"new", mode=0o755),
    directory(b"etc"),
    hard_link(b"etc/passwd.bak", b"etc/passwd"),
    directory(b"opt", mode=0o700, uid=5),
    file(b"opt/.wh.old"),
    directory(b"opt/old"),
    file(b"opt/old/now-a-directory", b"d"),
    directory(b"usr"),
    directory(b"usr/lib"),
    file(b"lib/again", b"through the link of the layer below"),
)
OPAQUE = archive(
    directory(b"var"),
    directory(b"var/cache", mode=0o750),
    file(b"var/cache/.wh..wh..opq"),
    file(b"var/cache/fresh", b"f"),
    file(b"etc/.wh.shadow"),
    file(b"dev/null", b"a file now"),
    symlink(b"tmp", b"var/tmp"),
)


def unpacked(folder: Path, archives: Sequence[bytes]) -> Listing:
    """What umoci makes of the layers."""
    write_layout(folder / "layout", "latest", [Layer(data) for data in archives], config={})
    image, tree = f"{folder / 'layout'}:latest", folder / "tree"
    subprocess.run(["umoci", "raw", "unpack", "--image", image, tree], check=True, capture_output=True)
    return read_tree(tree)


def comparable(listing: Listing) -> Listing:
    """Without the times of directories: umoci leaves the time of unpacking where the last layers name none."""
    return {
        path: replace(facts, mtime_ns=0) if facts.kind == stat.S_IFDIR else facts for path, facts in listing.items()
    }


@pytest.mark.parametrize(
    "archives",
    [[BASE], [BASE, CHANGES], [BASE, CHANGES, OPAQUE], [BASE, OPAQUE, CHANGES]],
    ids=["base", "changes", "opaque", "other-order"],
)
def test_image_equals_what_umoci_unpacks(tmp_path: Path, archives: Sequence[bytes]) -> None:
    expected = comparable(unpacked(tmp_path, archives))
    build(tmp_path, *archives, size_bytes=64 << 20)

    with mounted(tmp_path / "rootfs.ext4", tmp_path / "mounted") as root:
        seen_by_kernel = read_tree(root)

    assert differences(comparable(seen_by_kernel), expected) == []
    assert differences(read_image(tmp_path / "rootfs.ext4"), seen_by_kernel) == []


def test_image_keeps_the_times_of_directories_that_layers_name(tmp_path: Path) -> None:
    layer = archive(directory(b"a", mtime=1000), file(b"a/x"), directory(b"b", mtime=2000))
    expected = unpacked(tmp_path, [layer])
    build(tmp_path, layer, size_bytes=64 << 20)
    found = read_image(tmp_path / "rootfs.ext4")

    assert [found[path].mtime_ns for path in (b"a", b"b")] == [expected[path].mtime_ns for path in (b"a", b"b")]
