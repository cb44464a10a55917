"""Headers of archives made of images: banger's own reader gets back what was said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from banger.rootfs.limits import Limits
from banger.rootfs.reader import ChunkReader
from banger.rootfs.tar import Member, TarReader
from banger.rootfs.tar_writer import END, MemberHeader


def read_back(header: MemberHeader) -> Member:
    reader = ChunkReader(iter([header.pack() + END]))
    return next(iter(TarReader(reader, Limits(), end_marker=True)))


@given(
    name=st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    size=st.integers(0, 64 << 30),
    mtime_ns=st.integers(-(2**31) * 10**9, 2**34 * 10**9),
    values=st.dictionaries(
        st.sampled_from([b"user.a", b"trusted.\xff", b"security.x"]), st.binary(min_size=1, max_size=120)
    ),
)
def test_header_of_any_file_is_read_back(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int, values: dict[bytes, bytes]
) -> None:
    found = read_back(MemberHeader(name, b"0", mode, uid, gid, size, mtime_ns, xattrs=values))
    assert (found.name, found.mode, found.uid, found.gid) == (name, mode, uid, gid)
    assert (found.size, found.mtime_ns, found.xattrs) == (size, mtime_ns, values)


@given(st.sampled_from([b"1", b"2"]), st.binary(min_size=1, max_size=4095).filter(lambda link: b"\0" not in link))
def test_header_of_any_link_is_read_back(flag: bytes, link: bytes) -> None:
    assert read_back(MemberHeader(b"name", flag, 0o777, link=link)).link == link


def test_header_whose_record_grows_by_a_digit_counts_it() -> None:
    for length in (*range(50, 110), *range(950, 1010), *range(9950, 10010)):
        values = {b"user.a": b"v" * length}
        assert read_back(MemberHeader(b"n", b"0", 0, xattrs=values)).xattrs == values


def test_header_of_an_ordinary_file_is_one_block_long() -> None:
    assert len(MemberHeader(b"etc/passwd", b"0", 0o644, mtime_ns=10**18).pack()) == 512
