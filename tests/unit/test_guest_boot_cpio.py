"""The archive writer, read back by a reader written from the format's description."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from banger.guest.cpio import CpioWriter


@dataclass(frozen=True)
class Entry:
    name: str
    mode: int
    content: bytes
    device: tuple[int, int]


def read(archive: bytes) -> list[Entry]:
    entries, position = [], 0
    while True:
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        name_end = position + 110 + fields[11]
        start = name_end + -name_end % 4
        end = start + fields[6]
        name = archive[position + 110 : name_end - 1].decode()
        position = end + -end % 4
        if name == "TRAILER!!!":
            assert position == len(archive)
            return entries
        entries.append(Entry(name, fields[1], archive[start:end], (fields[9], fields[10])))


def test_archive_holds_what_was_added_with_its_modes() -> None:
    cpio = CpioWriter()
    cpio.file("etc/secret", b"s", 0o600)
    cpio.symlink("bin/sh", "busybox")
    cpio.character_device("dev/console", 5, 1)
    cpio.directory("tmp", 0o1777)
    found = {entry.name: entry for entry in read(cpio.finish())}
    assert found["etc/secret"].mode == stat.S_IFREG | 0o600
    assert found["bin/sh"] == Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox", (0, 0))
    assert found["dev/console"].device == (5, 1)
    assert found["tmp"].mode == stat.S_IFDIR | 0o1777


def test_archive_parents_come_once_and_before_what_is_in_them() -> None:
    cpio = CpioWriter()
    cpio.file("/a/b/one", b"")
    cpio.file("a/b/two", b"")
    assert [entry.name for entry in read(cpio.finish())] == ["a", "a/b", "a/b/one", "a/b/two"]


def test_archive_of_equal_input_is_equal() -> None:
    def make() -> bytes:
        cpio = CpioWriter()
        cpio.file("x/y", b"content")
        return cpio.finish()

    assert make() == make()


PATHS = st.lists(st.text("abcä", min_size=1, max_size=9), min_size=1, max_size=4).map("/".join)


@given(st.lists(st.tuples(PATHS, st.binary(max_size=40)), max_size=8))
def test_archive_of_any_files_reads_back_and_ends_on_a_word(files: list[tuple[str, bytes]]) -> None:
    cpio = CpioWriter()
    for name, content in files:
        cpio.file(name, content)
    archive = cpio.finish()
    assert len(archive) % 4 == 0
    regular = [(entry.name, entry.content) for entry in read(archive) if stat.S_ISREG(entry.mode)]
    assert regular == files
