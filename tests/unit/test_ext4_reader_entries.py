"""Inodes, directory blocks and attributes: what the writer makes is read back, what nobody makes is refused."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError
from banger.rootfs.ext4.directories import directory_data
from banger.rootfs.ext4.inodes import XATTR_ROOM, InodeContent, device_field, pack_inode
from banger.rootfs.ext4.metadata import number_nodes
from banger.rootfs.ext4.reader_directory import parse_block
from banger.rootfs.ext4.reader_inode import parse_inode
from banger.rootfs.ext4.reader_xattrs import block_xattrs, inode_xattrs
from banger.rootfs.ext4.xattrs import XattrSet
from banger.rootfs.nodes import Device, Directory, File, Symlink

BLOCK = 4096
NS = 10**9


def entry(number: int, length: int, name: bytes, kind: int = 1, name_length: int | None = None) -> bytes:
    head = struct.pack("<IHBB", number, length, len(name) if name_length is None else name_length, kind)
    return (head + name).ljust(length, b"\0")


# -- directories -------------------------------------------------------------------------------------------


@given(
    st.sets(
        st.binary(min_size=1, max_size=255).filter(lambda n: not {0, 47} & set(n) and n not in (b".", b"..")),
        max_size=60,
    )
)
def test_directory_of_the_writer_is_read_back(names: set[bytes]) -> None:
    folder = Directory(0o755, 0, 0, 0)
    for name in names:
        folder.entries[name] = File(0o644, 0, 0, 0)
    number_nodes(folder, 11)
    data = directory_data(folder, 1)
    found = [entry for at in range(0, len(data), BLOCK) for entry in parse_block(data[at : at + BLOCK], 2)]
    assert found == [(name, node.number, 1) for name, node in folder.entries.items()]


def test_directory_block_of_a_hash_tree_counts_as_empty() -> None:
    inner = struct.pack("<IHBB", 0, BLOCK, 0, 0) + bytes(range(1, 200)) * 10
    root = entry(12, 12, b".", 2) + entry(2, BLOCK - 12, b"..", 2) + b""
    assert list(parse_block(inner.ljust(BLOCK, b"\1"), 12)) == []
    assert list(parse_block(root, 12)) == []


def test_directory_block_of_64_kib_has_one_entry_across_all_of_it() -> None:
    for stored in (0, 0xFFFF):
        block = struct.pack("<IHBB", 12, stored, 1, 1) + b"x"
        assert list(parse_block(block.ljust(65536, b"\0"), 2)) == [(b"x", 12, 1)]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(bytes(BLOCK), id="length 0"),
        pytest.param(entry(12, 8, b"").ljust(BLOCK, b"\0"), id="length too small"),
        pytest.param(struct.pack("<IHBB", 12, 13, 1, 1).ljust(BLOCK, b"\0"), id="length odd"),
        pytest.param(entry(12, 12, b"a" * 200).ljust(BLOCK, b"\0"), id="name longer than entry"),
        pytest.param(struct.pack("<IHBB", 12, BLOCK + 4, 1, 1).ljust(BLOCK, b"a"), id="beyond the block"),
        pytest.param(entry(12, BLOCK - 4, b"a") + bytes(4), id="rest too small for an entry"),
        pytest.param(entry(12, BLOCK, b""), id="no name"),
        pytest.param(entry(12, BLOCK, b"a/b"), id="slash"),
        pytest.param(entry(12, BLOCK, b"a\0b"), id="NUL"),
    ],
)
def test_directory_block_that_is_damaged_is_refused(block: bytes) -> None:
    with pytest.raises(BangerError, match="inode 7"):
        list(parse_block(block, 7))


# -- inodes ------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 2),
    st.integers(-(2**31) * NS, (2**34 - 2**31) * NS - 1),
    st.integers(0, 2**44),
)
def test_inode_of_the_writer_is_read_back(mode: int, uid: int, gid: int, mtime_ns: int, size: int) -> None:
    node = File(mode, uid, gid, mtime_ns, size=size)
    node.links = 3
    content = InodeContent(size=size, block_field=b"field", has_extents=True, xattr_block=2**40 + 7)
    found = parse_inode(12, pack_inode(node, content, 1))
    assert (found.mode, found.uid, found.gid) == (0o100000 | mode, uid, gid)
    assert (found.mtime_ns, found.size, found.nlink) == (mtime_ns, size, 3)
    assert (found.has_extents, found.xattr_block, found.block_field[:5]) == (True, 2**40 + 7, b"field")
    assert found.is_file
    assert not found.is_directory
    assert not found.is_symlink


@pytest.mark.parametrize("rdev", [(1, 3), (0, 0), (255, 255), (256, 1), (8, 256), (4095, 1048575)])
@pytest.mark.parametrize("is_block", [False, True])
def test_inode_of_a_device_tells_its_numbers(rdev: tuple[int, int], is_block: bool) -> None:
    node = Device(0o600, 0, 0, 0, is_block=is_block, major=rdev[0], minor=rdev[1])
    node.links = 1
    assert parse_inode(12, pack_inode(node, InodeContent(block_field=device_field(node)), 1)).rdev == rdev


def test_inode_of_128_bytes_has_whole_seconds_and_no_attributes() -> None:
    node = Symlink(0o777, 0, 0, -5 * NS, target=b"x")
    node.links = 1
    found = parse_inode(12, pack_inode(node, InodeContent(1, b"x"), 1)[:128])
    assert (found.mtime_ns, found.tail) == (-5 * NS, b"")


@pytest.mark.parametrize(
    ("offset", "value", "complaint"),
    [
        (0, b"\0\0", "not in use"),
        (0, b"\xff\xff", "not in use"),
        (26, b"\0\0", "not in use"),
        (32, struct.pack("<I", 0x10000000), "inline_data"),
        (32, struct.pack("<I", 0x800), "encrypt"),
        (32, struct.pack("<I", 0x200000), "ea_inode"),
        (128, b"\xff\xff", "beyond its end"),
        (128, b"\x84\0", "beyond its end"),
        (128, b"\x21\0", "beyond its end"),
    ],
)
def test_inode_that_is_damaged_is_refused(offset: int, value: bytes, complaint: str) -> None:
    node = File(0o644, 0, 0, 0)
    node.links = 1
    raw = bytearray(pack_inode(node, InodeContent(), 1))
    raw[offset : offset + len(value)] = value
    with pytest.raises(BangerError, match=complaint):
        parse_inode(12, bytes(raw))


# -- extended attributes -----------------------------------------------------------------------------------

names = st.tuples(st.sampled_from([b"user.", b"trusted.", b"security."]), st.binary(min_size=1, max_size=30)).map(
    b"".join
)
attributes = st.dictionaries(names.filter(lambda n: b"\0" not in n), st.binary(max_size=60), max_size=8)
DROPPED = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")


@given(attributes)
def test_xattrs_of_the_writer_are_read_back_from_a_block(values: dict[bytes, bytes]) -> None:
    expected = {name: value for name, value in values.items() if not name.startswith(DROPPED)}
    assert block_xattrs(XattrSet(values).block(7, 1), 12) == expected


@given(st.dictionaries(names.filter(lambda n: b"\0" not in n and len(n) < 20), st.binary(max_size=8), max_size=2))
def test_xattrs_of_the_writer_are_read_back_from_an_inode(values: dict[bytes, bytes]) -> None:
    inside = XattrSet(values).in_inode(XATTR_ROOM)
    assert inside is not None
    expected = {name: value for name, value in values.items() if not name.startswith(DROPPED)}
    assert inode_xattrs(inside, 12) == expected


def test_xattrs_that_are_acls_come_back_in_the_form_of_system_calls() -> None:
    none = 0xFFFFFFFF
    entries = [(1, 7, none), (2, 5, 1000), (4, 5, none), (8, 4, 50), (0x10, 7, none), (0x20, 0, none)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    values = {b"system.posix_acl_access": acl, b"system.posix_acl_default": acl}
    assert block_xattrs(XattrSet(values).block(7, 1), 12) == values


def xattr(name: bytes, offset: int, size: int, *, index: int = 1, inode: int = 0) -> bytes:
    head = struct.pack("<BBHIII", len(name), index, offset, inode, size, 0)
    return head + name.ljust(len(name) + 3 & ~3, b"\0")


def xattr_block(*entries: bytes, magic: int = 0xEA020000) -> bytes:
    return (struct.pack("<I", magic).ljust(32, b"\0") + b"".join(entries)).ljust(BLOCK, b"\0")


def test_xattrs_of_unknown_namespaces_are_left_out() -> None:
    assert block_xattrs(xattr_block(xattr(b"a", 4000, 3, index=99), xattr(b"b", 4000, 3)), 12) == {b"user.b": bytes(3)}


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(xattr_block(magic=0), id="no magic"),
        pytest.param(xattr_block(xattr(b"a", 4000, 97)), id="value across the end"),
        pytest.param(xattr_block(xattr(b"a", 4000, 0xFFFFFFFF)), id="endless value"),
        pytest.param(xattr_block(xattr(b"a", 0, 10, inode=13)), id="value in an inode"),
        pytest.param(xattr_block(xattr(b"a\0b", 4000, 1)), id="NUL in the name"),
        pytest.param(xattr_block(*[xattr(b"a%d" % i, 0, 4000) for i in range(9)]), id="values shared"),
        pytest.param(xattr_block().ljust(BLOCK, b"\0")[:32] + b"\x01" * (BLOCK - 32), id="no end"),
        pytest.param(xattr_block(xattr(b"", 4000, 8, index=2)), id="ACL of no version"),
    ],
)
def test_xattrs_that_are_damaged_are_refused(block: bytes) -> None:
    with pytest.raises(BangerError, match="inode 12 are damaged"):
        block_xattrs(block, 12)


@pytest.mark.parametrize("tail", [b"", b"\0\0", bytes(96), b"\1" * 96])
def test_xattrs_of_an_inode_without_any_are_none(tail: bytes) -> None:
    assert inode_xattrs(tail, 12) == {}
