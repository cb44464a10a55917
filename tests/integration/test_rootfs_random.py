"""Random layers: whatever they do to each other, the image holds exactly the merged tree, and e2fsck agrees."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.rootfs.nodes import Device, Directory, Fifo, File, Symlink
from tests.support.rootfs import (
    archive,
    built,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    merged,
    pax,
    symlink,
    xattrs,
)

pytestmark = pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None, reason="e2fsprogs is not installed"
)

#: Few names, so that layers meet.
NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff", b"..", b"n" * 255, b".wh.a", b".wh.b", b".wh..wh..opq"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(b"/".join)
DATA = st.one_of(
    st.binary(max_size=200),
    st.integers(0, 200_000).map(lambda size: b"z" * size),
    st.integers(0, 300_000).map(bytes),
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b", b"trusted.c", b"security.d"]),
    st.binary(min_size=1, max_size=400),
    max_size=4,
)


@st.composite
def members(draw: st.DrawFn) -> bytes:
    path = draw(PATHS)
    before = gnu_long(path) if len(path) > 100 else b""
    before += xattrs(values) if (values := draw(ATTRIBUTES)) else b""
    name = path[:100]
    kind = draw(st.sampled_from(["file", "file", "directory", "directory", "symlink", "link", "device", "fifo"]))
    uid, mode = draw(st.integers(0, 2**32 - 2)), draw(st.integers(0, 0o7777))
    if kind == "file":
        return before + file(name, draw(DATA), uid=uid, mode=mode)
    if kind == "directory":
        return before + directory(name, mode, uid=uid)
    if kind == "symlink":
        return before + symlink(name, draw(PATHS))
    if kind == "link":
        target = draw(PATHS)
        return (
            before
            + (pax((b"linkpath", target)) if not before and len(target) > 100 else b"")
            + hard_link(name, target[:100])
        )
    if kind == "device":
        return before + header(name, b"3", device=(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1))))
    return before + header(name, b"6", mode=mode)


LAYERS = st.lists(st.lists(members(), max_size=8).map(lambda found: archive(*found)), min_size=1, max_size=3)


@given(LAYERS)
def test_image_of_random_layers_holds_the_merged_tree(layers: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            tree = merged(*layers)
        except BangerError as error:
            assert error.kind is ErrorKind.INVALID
            with pytest.raises(BangerError):
                built(Path(folder), *layers)
            assert not (Path(folder) / "rootfs.ext4").exists()
            return
        found = built(Path(folder), *layers)

    assert found.keys() == tree.keys()
    for path, node in tree.items():
        facts = found[path]
        assert (facts.uid, facts.xattrs) == (node.uid, node.xattrs)
        assert facts.mode == (0o777 if isinstance(node, Symlink) else node.mode)
        if isinstance(node, File):
            assert facts.size == node.size
        elif isinstance(node, Symlink):
            assert facts.data == node.target
        elif isinstance(node, Device):
            assert facts.device == (node.major, node.minor)
        else:
            assert isinstance(node, Directory | Fifo)
        if not isinstance(node, Directory):
            names = [other for other, candidate in tree.items() if candidate is node]
            assert (facts.links, facts.same_as) == (len(names), min(names))
