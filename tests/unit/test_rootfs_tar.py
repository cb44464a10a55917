"""The tar reader on well-formed archives of every dialect that layers come in."""

from __future__ import annotations

import io
import posixpath
import struct
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError
from banger.rootfs.layer import clean_path
from banger.rootfs.limits import Limits
from banger.rootfs.reader import ChunkReader
from banger.rootfs.tar import Member, MemberKind, TarReader
from tests.support.rootfs import (
    END,
    archive,
    directory,
    file,
    gnu_long,
    hard_link,
    header,
    padded,
    pax,
    reseal,
    symlink,
    xattrs,
)


def members(data: bytes, *, end_marker: bool = False, chunk: int = 700) -> list[tuple[Member, bytes]]:
    """All members with their data, read in small chunks."""

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(data), chunk):
            yield data[at : at + chunk]

    reader = ChunkReader(chunks())
    return [(member, reader.read(member.size)) for member in TarReader(reader, Limits(), end_marker=end_marker)]


def only(data: bytes) -> Member:
    """The archive's single member."""
    [(member, _)] = members(data)
    return member


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("chunk", [1, 512, 10_000])
def test_tar_every_dialect_reads_the_same(dialect: int, chunk: int) -> None:
    buffer = io.BytesIO()
    long_name = "d" * 60 + "/" + "n" * 90
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
        info = tarfile.TarInfo(long_name)
        info.size, info.mode, info.uid, info.gid, info.mtime = 3, 0o4755, 1000, 2000, 1234567890
        tar.addfile(info, io.BytesIO(b"abc"))

    [(member, data)] = members(buffer.getvalue(), chunk=chunk)

    assert data == b"abc"
    assert member == Member(long_name.encode(), MemberKind.FILE, 0o4755, 1000, 2000, 1234567890 * 10**9, size=3)


def test_tar_data_between_members_is_aligned() -> None:
    found = members(archive(file(b"a", b"1"), file(b"b", b"2" * 512), file(b"c"), file(b"d", b"4" * 513)))

    assert [(member.name, data) for member, data in found] == [
        (b"a", b"1"),
        (b"b", b"2" * 512),
        (b"c", b""),
        (b"d", b"4" * 513),
    ]


def test_tar_kinds_are_told_apart() -> None:
    found = members(
        archive(
            file(b"f"),
            directory(b"d/"),
            symlink(b"s", b"target"),
            hard_link(b"h", b"f"),
            header(b"c", b"3", device=(5, 1)),
            header(b"b", b"4", device=(8, 16)),
            header(b"p", b"6"),
            header(b"contiguous", b"7"),
        )
    )

    kinds = [member.kind for member, _ in found]
    assert kinds == [*MemberKind, MemberKind.FILE]
    assert (found[4][0].major, found[4][0].minor) == (5, 1)
    assert found[2][0].link == b"target"


def test_tar_gnu_long_name_and_target_override() -> None:
    member = only(archive(gnu_long(b"n" * 200), gnu_long(b"t" * 300, b"K"), header(b"short", b"2", link=b"short")))

    assert (member.name, member.link) == (b"n" * 200, b"t" * 300)


def test_tar_pax_overrides_everything_it_names() -> None:
    records = pax(
        (b"path", b"new name"),
        (b"uid", b"3000000"),
        (b"gid", b"4000000"),
        (b"size", b"5"),
        (b"mtime", b"12.000000345678"),
        (b"SCHILY.xattr.user.k", b"v\0\xff"),
        (b"comment", b"ignored"),
    )
    [(member, data)] = members(archive(records, header(b"old", size=0), padded(b"12345")))

    assert data == b"12345"
    assert member == Member(
        b"new name", MemberKind.FILE, 0o644, 3000000, 4000000, 12 * 10**9 + 345, size=5, xattrs={b"user.k": b"v\0\xff"}
    )


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(b"path", b"first"), (b"path", b"last")], (b"last", 0, 1, {})),
        ([(b"path", b"first"), (b"path", b"")], (b"plain", 0, 1, {})),
        ([(b"uid", b"7"), (b"size", b"9"), (b"uid", b"8"), (b"size", b"1")], (b"plain", 8, 1, {})),
        ([(b"SCHILY.xattr.user.k", b"a"), (b"SCHILY.xattr.user.k", b"b")], (b"plain", 0, 1, {b"user.k": b"b"})),
    ],
    ids=["name", "name taken back", "numbers", "attribute"],
)
def test_tar_pax_key_given_twice_counts_as_it_was_given_last(
    records: list[tuple[bytes, bytes]], expected: tuple[bytes, int, int, dict[bytes, bytes]]
) -> None:
    member = only(archive(pax(*records), file(b"plain", b"x")))

    assert (member.name, member.uid, member.size, dict(member.xattrs)) == expected


def test_tar_pax_holds_for_one_member_only() -> None:
    found = members(archive(pax((b"uid", b"9")), file(b"a"), file(b"b")))

    assert [member.uid for member, _ in found] == [9, 0]


def test_tar_pax_empty_value_means_the_plain_header() -> None:
    assert only(archive(pax((b"path", b""), (b"size", b"")), file(b"plain"))).name == b"plain"


@pytest.mark.parametrize(
    ("text", "expected_ns"), [(b"-5.5", -5_500_000_000), (b"7", 7 * 10**9), (b"0.1", 10**8), (b"3.", 3 * 10**9)]
)
def test_tar_pax_time_is_exact(text: bytes, expected_ns: int) -> None:
    assert only(archive(pax((b"mtime", text)), file(b"a"))).mtime_ns == expected_ns


def test_tar_global_comment_is_ignored() -> None:
    assert only(archive(pax((b"comment", b"0123abcd"), kind=b"g"), file(b"a"))).name == b"a"


def test_tar_binary_numbers_are_read() -> None:
    member = only(archive(file(b"a", uid=3_000_000, mtime=-12345)))

    assert (member.uid, member.mtime_ns) == (3_000_000, -12345 * 10**9)


def test_tar_numbers_ended_by_space_or_filling_the_field_are_read() -> None:
    raw = file(b"a")
    for value in (b"0000755 ", b"    755\0", b"00000755", b"755\0\0\0\0\0"):
        assert only(archive(reseal(raw[:100] + value + raw[108:]))).mode == 0o755


def test_tar_ustar_prefix_is_joined() -> None:
    assert only(archive(header(b"name", prefix=b"some/prefix"))).name == b"some/prefix/name"


def test_tar_prefix_field_of_gnu_archives_is_no_prefix() -> None:
    assert only(archive(header(b"name", prefix=b"00000000000", magic=b"ustar  \0"))).name == b"name"


def test_tar_star_archives_have_a_shorter_prefix() -> None:
    raw = header(b"name", prefix=b"p" * 131 + b"14000000000 14000000000 ")

    assert only(archive(reseal(raw[:508] + b"tar\0"))).name == b"p" * 131 + b"/name"


def test_tar_signed_checksum_of_old_archivers_is_accepted() -> None:
    raw = file(b"\xe4\xf6\xfc")
    blank = raw[:148] + b" " * 8 + raw[156:]
    signed = sum(struct.unpack("512b", blank))

    assert only(archive(blank[:148] + b"%06o\0 " % signed + blank[156:])).name == b"\xe4\xf6\xfc"


def test_tar_checksum_of_the_largest_bytes_is_accepted() -> None:
    name, prefix = b"\xff" * 100, b"\xff" * 155

    assert only(archive(header(name, prefix=prefix))).name == prefix + b"/" + name


@given(st.lists(st.sampled_from([b"a", b"bc", b".", b"..", b"...", b".hidden", b"", b"c" * 250]), max_size=6))
def test_tar_path_is_cleaned_as_a_kernel_at_its_root_would_resolve_it(parts: list[bytes]) -> None:
    raw = b"/".join(parts)

    assert clean_path(raw) == posixpath.normpath(b"/root/../" + raw).lstrip(b"/")


@pytest.mark.parametrize("raw", [b"a" * 256, b"./" + b"a" * 256 + b"/", b"b/" + b"a" * 256, b"b/" + b"a" * 300 + b"/c"])
def test_tar_path_with_a_part_that_linux_cannot_have_is_refused(raw: bytes) -> None:
    with pytest.raises(BangerError, match="longer than 255 bytes"):
        clean_path(raw)


def test_tar_v7_directory_is_known_by_its_slash() -> None:
    assert only(archive(header(b"d/", b"\0"))).kind is MemberKind.DIRECTORY


def test_tar_size_of_a_link_is_not_data() -> None:
    found = members(archive(file(b"a"), header(b"b", b"1", link=b"a", size=512), file(b"c")))

    assert [member.name for member, _ in found] == [b"a", b"b", b"c"]


def test_tar_empty_xattr_is_left_out_as_other_readers_do() -> None:
    assert only(archive(xattrs({b"user.a": b"", b"user.b": b"1"}), file(b"a"))).xattrs == {b"user.b": b"1"}


def test_tar_without_end_marker_is_accepted_where_the_end_is_known() -> None:
    assert len(members(file(b"a") + file(b"b"))) == 2


def test_tar_whose_last_block_is_short_is_accepted_where_the_end_is_known() -> None:
    unpadded = file(b"a") + header(b"b", size=3) + b"abc"

    assert [data for _, data in members(unpadded)] == [b"", b"abc"]
    with pytest.raises(BangerError, match="truncated"):
        members(unpadded + b"\0")
    with pytest.raises(BangerError, match="truncated"):
        members(unpadded, end_marker=True)


def test_tar_without_end_marker_is_refused_where_it_is_not() -> None:
    with pytest.raises(BangerError, match="truncated"):
        members(file(b"a") + file(b"b"), end_marker=True)


def test_tar_empty_archive_has_no_members() -> None:
    assert members(END, end_marker=True) == []
