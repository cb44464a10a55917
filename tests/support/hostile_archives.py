"""Archives that no honest guest sends: each tries to get out of the directory it is unpacked in, or to cost too much.

The topmost entry of each is ``d``; the file that they want to change lies beside the target and is called ``outside``.
"""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Iterator

from tests.support.rootfs import header, number, padded, pax, raw_pax, record, reseal
from tests.support.sparse_archives import sparse_old, sparse_pax
from tests.support.tars import Member, archive, entry

TOP = entry("d", tarfile.DIRTYPE)
TIB = 1 << 40
_TOP_BLOCK = archive(TOP)[:512]
_END = bytes(1024)


def hostile_archives() -> Iterator[tuple[str, bytes]]:
    """Each with what it tries."""
    yield from _ways_out()
    yield from _through_links()
    yield from _false_headers()
    yield from _false_sparse_files()
    yield from _false_streams()


def _ways_out() -> Iterator[tuple[str, bytes]]:
    for name in (
        "/d/outside",
        "/outside",
        "../outside",
        "d/../../outside",
        "d/..",
        "..",
        "e/outside",
        "d/./../../outside",
    ):
        yield f"file {name}", archive(TOP, entry(name, data=b"evil"))
        yield f"directory {name}", archive(TOP, entry(name, tarfile.DIRTYPE, mode=0o777))
    for linkname in ("../outside", "/etc/passwd", "d/nothing", "d", "d/../../outside", ""):
        yield f"hard link to {linkname}", archive(TOP, entry("d/hard", tarfile.LNKTYPE, linkname=linkname))


def _through_links() -> Iterator[tuple[str, bytes]]:
    link = entry("d/link", tarfile.SYMTYPE, linkname="../..")
    later: dict[str, Member] = {
        "file": entry("d/link/outside", data=b"evil"),
        "new file": entry("d/link/new", data=b"evil"),
        "directory": entry("d/link/sub", tarfile.DIRTYPE, mode=0o777),
        "mode": entry("d/link", tarfile.DIRTYPE, mode=0o777),
        "mode with a slash": entry("d/link/", tarfile.DIRTYPE, mode=0o777),
        "link": entry("d/link/s", tarfile.SYMTYPE, linkname="x"),
        "hard link": entry("d/hard", tarfile.LNKTYPE, linkname="d/link/outside"),
        "device": entry("d/link/null", tarfile.CHRTYPE),
    }
    for what, member in later.items():
        yield f"{what} behind a link", archive(TOP, link, member)
    top_link = entry("d", tarfile.SYMTYPE, linkname="..")
    yield "file behind a link that is the topmost entry", archive(top_link, entry("d/outside", data=b"evil"))
    yield (
        "directory in place of a link, then a file",
        archive(TOP, link, entry("d/link", tarfile.DIRTYPE), entry("d/link/outside", data=b"evil")),
    )
    hard = entry("d/hard", tarfile.LNKTYPE, linkname="d/link")
    yield "hard link to a link, then a file behind it", archive(TOP, link, hard, entry("d/hard/outside", data=b"evil"))
    chain = [entry("d/s", tarfile.DIRTYPE), entry("d/s/here", tarfile.SYMTYPE, linkname="..")]
    chain.append(entry("d/s/climb", tarfile.SYMTYPE, linkname="here/../outside"))
    yield "chain of links", archive(TOP, *chain, entry("d/s/climb/x", data=b"evil"))


def _false_headers() -> Iterator[tuple[str, bytes]]:
    for key, value in {
        b"mtime": b"nan", b"path": b"d/a\0b", b"linkpath": b"a\0b", b"size": b"-5", b"uid": b"-1", b"gid": b"99999999999",
    }.items():  # fmt: skip
        kind = b"2" if key == b"linkpath" else b"0"
        yield f"{key.decode()} that no file has", _TOP_BLOCK + pax((key, value)) + header(b"d/x", kind) + _END
    for value in (b"inf", b"-inf", b"1e400", b"1e18"):
        yield f"time {value.decode()}", _TOP_BLOCK + pax((b"mtime", value)) + header(b"d/x", b"0") + _END
    for value in (b"d/../../outside", b"/outside", b"../outside"):
        yield f"PAX path {value.decode()}", _TOP_BLOCK + pax((b"path", value)) + header(b"d/x", b"0") + _END
        long_name = header(b"././@LongLink", b"L", size=len(value) + 1, magic=b"ustar  \0") + padded(value + b"\0")
        yield f"GNU name {value.decode()}", _TOP_BLOCK + long_name + header(b"d/x", b"0") + _END
    stacked = header(b"././@LongLink", b"L", size=2, magic=b"ustar  \0") + padded(b"x\0")
    yield "headers without end", _TOP_BLOCK + stacked * 5000
    yield "global headers without end", _TOP_BLOCK + (pax((b"comment", b"c" * 60_000), kind=b"g")) * 40 + _END
    huge = header(b"././@LongLink", b"L", size=1 << 20, magic=b"ustar  \0") + b"n" * (1 << 20)
    yield "names of a MiB, stacked", _TOP_BLOCK + huge * 8 + header(b"d/x", b"0") + _END
    deep = b"d/" + b"a/" * 100_000
    yield "path of a hundred thousand directories", (_TOP_BLOCK + pax((b"path", deep)) + header(b"d/x", b"5") + _END)
    for what, data in {
        "digits without end": b"1" * 1_000_000,
        "a value of digits": record(b"comment", b"1" * 1_000_000),
        "no key": record(b"", b"x") * 1000,
        "records that overlap": b"30 path=d/x\n" + b"12 path=d/y\n",
        "a length that is none": b"-5 path=d/x\n",
    }.items():
        for kind in (b"x", b"g"):
            yield (
                f"PAX header ({kind.decode()}) of {what}",
                _TOP_BLOCK + raw_pax(data, kind) + header(b"d/x", b"0") + _END,
            )
    negative = bytearray(header(b"d/x", b"0"))
    negative[124:136] = b"\xff" * 12
    yield "file shorter than nothing", _TOP_BLOCK + reseal(bytes(negative)) + _END


def _false_sparse_files() -> Iterator[tuple[str, bytes]]:
    for version in ("0.0", "0.1", "1.0"):
        yield (
            f"sparse file of a TiB, PAX {version}",
            _TOP_BLOCK + sparse_pax(b"d/x", TIB, (0, b"a"), version=version) + _END,
        )
        overlapping = sparse_pax(b"d/x", 900, (500, b"a" * 10), (5, b"b"), version=version)
        yield f"sparse file out of order, PAX {version}", _TOP_BLOCK + overlapping + _END
        beyond = sparse_pax(b"d/x", 10, (500, b"a"), version=version)
        yield f"sparse file beyond its end, PAX {version}", _TOP_BLOCK + beyond + _END
        yield (
            f"sparse file out of the directory, PAX {version}",
            (_TOP_BLOCK + sparse_pax(b"../outside", 10, (0, b"evil"), version=version) + _END),
        )
    yield "sparse file of 64 PiB, old", _TOP_BLOCK + sparse_old(b"d/x", 1 << 56, (0, b"a")) + _END
    yield (
        "sparse file with less data than its map",
        _TOP_BLOCK + sparse_old(b"d/x", 99_999, (0, b"a" * 9999), stored=1) + _END,
    )
    head = bytearray(header(b"d/x", b"S", magic=b"ustar  \0"))
    head[482], head[483:495] = 1, number(TIB, 12)
    more = (number(1, 12) + number(1, 12)) * 21 + b"\1" + bytes(7)
    yield "map of a sparse file without end", _TOP_BLOCK + reseal(bytes(head)) + more * 2100
    yield "map of a sparse file that is cut", _TOP_BLOCK + reseal(bytes(head))
    lines = b"99999999\n" + b"1000000000000001\n" * 70_000
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
    yield (
        "map without end",
        (
            _TOP_BLOCK
            + pax(*records, (b"GNU.sparse.name", b"d/x"))
            + header(b"d/x", size=len(lines))
            + padded(lines)
            + _END
        ),
    )


def _false_streams() -> Iterator[tuple[str, bytes]]:
    whole = archive(TOP, entry("d/x", data=b"1" * 5000))
    yield "nothing", b""
    yield "no archive", b"not a tar" * 100
    yield "half a header", whole[:900]
    yield "half a file", whole[:3000]
    yield "damaged header", whole[:512] + b"x" * 512
    yield "zeros", bytes(100_000)
    yield "noise", struct.pack("<512H", *((index * 40_503) % 65_536 for index in range(512)))
