"""Archives made to break out, to confuse or to exhaust: refused with ``invalid``, or harmless inside their own tree."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.units import GIB, MIB
from banger.rootfs.limits import Limits
from banger.rootfs.nodes import Directory, File, Symlink
from tests.support.rootfs import (
    END,
    archive,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    merged,
    padded,
    pax,
    raw_pax,
    record,
    reseal,
    symlink,
)


def _with(member: bytes, offset: int, value: bytes) -> bytes:
    """A member whose header says something else at ``offset``, with a checksum that agrees."""
    return reseal(member[:offset] + value + member[offset + len(value) : 512]) + member[512:]


#: Each link names the next one twice, so that following them all would take 2**30 steps.
DOUBLING = b"".join(symlink(b"l%d" % index, b"/l%d/../l%d" % (index + 1, index + 1)) for index in range(30))

REFUSED = {
    "root-replaced-by-file": [file(b".", b"x")],
    "root-replaced-by-symlink": [symlink(b"/", b"/etc")],
    "root-replaced-by-dotdot-symlink": [symlink(b"a/..", b"/etc")],
    "root-replaced-by-hard-link": [file(b"f"), hard_link(b"./", b"f")],
    "child-of-a-file": [file(b"f"), file(b"f/child")],
    "child-of-a-device": [header(b"d", b"3", device=(1, 3)), file(b"d/child")],
    "parent-symlink-with-long-name": [symlink(b"a", b"n" * 300), file(b"a/x")],
    "hard-link-to-itself": [hard_link(b"a", b"a")],
    "hard-links-in-a-circle": [hard_link(b"a", b"b"), hard_link(b"b", b"a")],
    "hard-link-to-nothing": [hard_link(b"a", b"../../etc/shadow")],
    "hard-link-to-directory": [directory(b"d"), hard_link(b"a", b"d")],
    "hard-link-to-root": [hard_link(b"a", b"/")],
    "hard-link-without-target": [hard_link(b"a", b"")],
    "symlink-without-target": [symlink(b"a", b"")],
    "symlink-with-overlong-target": [symlink(b"a", b"t" * 4096)],
    "whiteout-of-nothing": [file(b"d/.wh.")],
    "whiteout-of-dot": [file(b"d/.wh..")],
    "whiteout-of-dotdot": [file(b"d/.wh...")],
    "entry-below-a-whiteout": [file(b".wh.d/x")],
    "name-too-long": [gnu_long(b"n" * 256), file(b"x")],
    "path-too-long": [gnu_long(b"p/" * 2500), file(b"x")],
    "name-empty": [file(b"")],
    "name-with-nul": [pax((b"path", b"a\0b")), file(b"x")],
    "link-with-nul": [pax((b"linkpath", b"a\0b")), symlink(b"x", b"y")],
    "owner-minus-one": [file(b"x", uid=2**32 - 1)],
    "owner-absurd": [file(b"x", gid=2**55)],
    "owner-negative": [file(b"x", uid=-1)],
    "owner-absurd-in-pax": [pax((b"uid", b"9" * 19)), file(b"x")],
    "size-negative": [header(b"x", size=-512)],
    "size-absurd": [header(b"x", size=2**70)],
    "size-larger-than-archive": [header(b"x", size=10_000)],
    "size-not-octal": [_with(file(b"x"), 124, b"0000000009\0 ")],
    "size-with-underscore": [_with(file(b"x"), 124, b"0000000_010\0")],
    "size-in-pax-negative": [pax((b"size", b"-1")), file(b"x")],
    "size-in-pax-with-sign": [pax((b"size", b"+512")), file(b"x", b"x" * 512)],
    "size-in-pax-larger-than-archive": [pax((b"size", b"4096")), file(b"x", b"data")],
    "device-numbers-absurd": [header(b"x", b"3", device=(4096, 0))],
    "type-unknown": [header(b"x", b"Z")],
    "type-sparse": [header(b"x", b"S")],
    "sparse-in-pax": [pax((b"GNU.sparse.major", b"1")), file(b"x")],
    "checksum-wrong": [file(b"x")[:148] + b"0000001\0" + file(b"x")[156:]],
    "not-a-tar": [b"#!/bin/sh\n".ljust(512, b"x")],
    "pax-twice": [pax((b"path", b"a")), pax((b"path", b"b")), file(b"x")],
    "pax-and-gnu-name": [pax((b"path", b"a")), gnu_long(b"b"), file(b"x")],
    "gnu-name-twice": [gnu_long(b"a"), gnu_long(b"b"), file(b"x")],
    "pax-length-lies": [raw_pax(b"99 path=a\n"), file(b"x")],
    "pax-length-too-small": [raw_pax(b"3 path=a\n"), file(b"x")],
    "pax-length-zero": [raw_pax(b"0 path=a\n"), file(b"x")],
    "pax-length-signed": [raw_pax(b"+10 path=a\n"), file(b"x")],
    "pax-without-newline": [raw_pax(record(b"path", b"a")[:-1] + b"!"), file(b"x")],
    "pax-without-equals": [raw_pax(b"9 path_a\n"), file(b"x")],
    "pax-without-key": [raw_pax(b"5 =a\n"), file(b"x")],
    "pax-huge": [header(b"pax", b"x", size=2 * MIB), bytes(2 * MIB)],
    "pax-at-the-end": [pax((b"path", b"a"))],
    "pax-global-path": [pax((b"path", b"etc/shadow"), kind=b"g"), file(b"x")],
    "pax-global-size": [pax((b"size", b"0"), kind=b"g"), file(b"x", b"data")],
    "pax-time-malformed": [pax((b"mtime", b"1e9")), file(b"x")],
    "xattr-without-name": [pax((b"SCHILY.xattr.", b"v")), file(b"x")],
}


@pytest.mark.parametrize("members", REFUSED.values(), ids=REFUSED.keys())
def test_archive_hostile_is_refused(members: list[bytes]) -> None:
    with pytest.raises(BangerError) as caught:
        merged(archive(*members))

    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("cut", [1, 511, 513, 700])
def test_archive_truncated_is_refused(cut: int) -> None:
    with pytest.raises(BangerError, match="truncated"):
        merged((file(b"a", b"x" * 600) + file(b"b", b"y" * 600))[:cut])


@pytest.mark.parametrize(
    "members",
    [
        [symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")],
        [symlink(b"a", b"a/a"), file(b"a/x")],
        [DOUBLING, directory(b"l30"), file(b"l0/x")],
    ],
    ids=["circle", "itself", "doubling"],
)
def test_archive_with_looping_parents_is_refused_at_once(members: list[bytes]) -> None:
    with pytest.raises(BangerError, match="too many symbolic links"):
        merged(archive(*members), limits=replace(Limits(), lookup_steps=1000))


CONTAINED = {
    "absolute": ([file(b"/etc/passwd")], b"etc etc/passwd"),
    "dotdot": ([file(b"../../etc/passwd")], b"etc etc/passwd"),
    "dotdot-inside": ([file(b"a/../../b/./../c")], b"c"),
    "many-slashes": ([file(b"//a///b")], b"a a/b"),
    "absolute-symlink-parent": ([symlink(b"l", b"/etc"), file(b"l/x")], b"etc etc/x l"),
    "dotdot-symlink-parent": ([symlink(b"d/l", b"../../../../etc"), file(b"d/l/x")], b"d d/l etc etc/x"),
    "chained-symlink-parents": ([symlink(b"a", b"/b"), symlink(b"b", b"/c"), file(b"a/x")], b"a b c c/x"),
    "hard-link-to-symlink-as-parent": ([symlink(b"l", b"/e"), hard_link(b"m", b"l"), file(b"m/x")], b"e e/x l m"),
    "hard-link-target-absolute": ([file(b"a"), hard_link(b"b", b"/../a")], b"a b"),
    "hard-link-target-through-symlinks": ([symlink(b"l", b"/"), file(b"a"), hard_link(b"b", b"l/l/a")], b"a b l"),
    "nul-in-header": ([file(b"a\0b")], b"a"),
    "terminal-escapes": ([file(b"\x1b[31m")], b"\x1b[31m"),
    "archive-in-data": ([file(b"a", archive(file(b"b")))], b"a"),
    "entries-after-the-end": ([file(b"a"), END, file(b"b")], b"a"),
    "aufs-bookkeeping": ([directory(b".wh..wh.plnk"), file(b".wh..wh.plnk/1.2"), file(b"a")], b"a"),
}


@pytest.mark.parametrize(("members", "paths"), CONTAINED.values(), ids=CONTAINED.keys())
def test_archive_reaching_out_stays_in_its_tree(members: list[bytes], paths: bytes) -> None:
    assert sorted(merged(archive(*members))) == [b"", *paths.split()]


def test_archive_entry_over_symlink_replaces_the_link_not_its_target() -> None:
    tree = merged(archive(file(b"target", b"old"), symlink(b"l", b"target"), file(b"l", b"new!")))

    assert isinstance(tree[b"l"], File)
    assert tree[b"l"].size == 4
    assert isinstance(tree[b"target"], File)
    assert tree[b"target"].size == 3


def test_archive_directory_over_symlink_does_not_write_through_it() -> None:
    tree = merged(archive(directory(b"e", mode=0o700), symlink(b"l", b"e"), directory(b"l", mode=0o777), file(b"l/x")))

    assert isinstance(tree[b"l"], Directory)
    assert b"e/x" not in tree
    assert tree[b"e"].mode == 0o700


def test_whiteout_through_symlink_stays_in_the_tree() -> None:
    below = archive(file(b"etc/passwd"), symlink(b"l", b"../../../etc"))

    assert b"etc/passwd" not in merged(below, archive(file(b"l/.wh.passwd")))


def test_symlink_pointing_out_is_kept_as_text() -> None:
    tree = merged(archive(symlink(b"l", b"../../../etc/shadow")))

    assert isinstance(tree[b"l"], Symlink)
    assert tree[b"l"].target == b"../../../etc/shadow"


@pytest.mark.parametrize(
    ("limits", "members"),
    [
        (Limits(entries=10), [file(b"%d" % index) for index in range(11)]),
        (Limits(entries=10), [gnu_long(b"a/" * 20 + b"x"), file(b"x")]),
        (Limits(metadata_bytes=5 * 1024), [pax((b"SCHILY.xattr.user.a", b"v" * 5000)), file(b"x")]),
        (Limits(file_bytes=100), [file(b"x", bytes(101))]),
        (Limits(header_bytes=100), [pax((b"comment", b"c" * 200)), file(b"x")]),
        (Limits(path_bytes=20), [file(b"p/" * 20)]),
        (Limits(lookup_steps=100), [file(b"d%d/x" % index) for index in range(200)]),
    ],
    ids=["entries", "implied-parents", "attributes", "file", "header", "path", "look-ups"],
)
def test_archive_beyond_a_limit_is_refused(limits: Limits, members: list[bytes]) -> None:
    with pytest.raises(BangerError) as caught:
        merged(archive(*members), limits=limits)

    assert caught.value.kind is ErrorKind.INVALID


def test_archive_of_many_layers_shares_one_budget() -> None:
    limits = replace(Limits(), entries=3)

    with pytest.raises(BangerError, match="more than 3 entries"):
        merged(archive(file(b"a"), file(b"b")), archive(file(b"c"), file(b"d")), limits=limits)


def test_archive_with_lying_sizes_takes_no_memory() -> None:
    member = archive(header(b"x", size=60 * GIB), padded(b"little"))
    tracemalloc.start()
    try:
        with pytest.raises(BangerError, match="truncated"):
            merged(member)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < MIB
