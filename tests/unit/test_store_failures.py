"""What is wrong with the store is told as that, with what helps; readers wait for nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.wire.vm_spec import VmSpec
from banger.store import Store, database, failures
from tests.support.waiting import eventually


def vm(name: str) -> Vm:
    return Vm(f"id-{name}", name, VmSpec("debian"), VmState.STOPPED, clock.now())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "banger.db"


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(database, "PATIENCE_S", 0.05)
    store = Store(path)
    store.vms.insert(vm("first"))
    yield store
    store.close()


@contextmanager
def locked(path: Path) -> Iterator[Any]:
    """Somebody else has it, as a backup or a sqlite3 shell would.

    By the same library, which alone knows in this process who has locked what; the kernel counts locks by process.
    """
    other = database.sqlite.connect(str(path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        other.close()


def test_store_locked_by_another_process_is_unavailable_for_writing_and_can_be_read(path: Path, store: Store) -> None:
    def in_transaction() -> None:
        with store.database.transaction():
            pass

    with locked(path):
        for write in (lambda: store.vms.insert(vm("second")), in_transaction, lambda: store.leases.take("op", ["k"])):
            with pytest.raises(BangerError, match="locked by another process") as raised:
                write()
            assert raised.value.kind is ErrorKind.UNAVAILABLE
            assert str(path) in raised.value.hint
        assert [one.name for one in store.vms.all()] == ["first"]
    store.vms.insert(vm("second"))
    assert len(store.vms.all()) == 2


def test_store_locked_for_a_moment_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(path)
    with locked(path) as other:
        writer = threading.Thread(target=store.vms.insert, args=(vm("late"),))
        writer.start()
        eventually(lambda: not store.database._write_lock.acquire(blocking=False), what="the writer has its turn")
        other.execute("ROLLBACK")
        writer.join(20)
    assert [one.name for one in store.vms.all()] == ["late"]
    store.close()


def test_lock_that_does_not_go_is_waited_for_at_length_only_once(path: Path, store: Store) -> None:
    """Who undoes what was begun has a dozen things to write down."""

    def patience_ms() -> int:
        return int(store.database._writer.execute("PRAGMA busy_timeout").fetchone()[0])

    store.database._be_patient(0.3)
    with locked(path):
        with pytest.raises(BangerError):
            store.vms.insert(vm("second"))
        assert patience_ms() == 250
    store.vms.insert(vm("second"))
    assert patience_ms() == 50, "what it is in these tests"


def test_writer_that_waits_too_long_for_others_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_TURN_S", 0.05)
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with store.database.transaction():
            begun.set()
            end.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait(20)
    with pytest.raises(BangerError, match="is busy"):
        store.vms.insert(vm("second"))
    end.set()
    holder.join()


def test_reader_does_not_wait_for_a_writer_and_sees_what_was_committed_last(store: Store) -> None:
    written, end = threading.Event(), threading.Event()
    seen_inside: list[int] = []

    def write() -> None:
        with store.database.transaction():
            store.vms.insert(vm("second"))
            seen_inside.append(len(store.vms.all()))
            written.set()
            end.wait(20)

    writer = threading.Thread(target=write)
    writer.start()
    written.wait(20)
    assert [one.name for one in store.vms.all()] == ["first"]
    end.set()
    writer.join()
    assert seen_inside == [2]
    assert len(store.vms.all()) == 2


def test_transaction_that_fails_leaves_nothing(store: Store) -> None:
    def change_and_fail() -> None:
        with store.database.transaction():
            store.vms.update(replace(store.vms.find("first"), reason="changed"))
            store.vms.insert(vm("first"))

    with pytest.raises(BangerError, match="already exists"):
        change_and_fail()
    assert store.vms.find("first").reason == ""
    assert len(store.vms.all()) == 1


@pytest.mark.parametrize("content", [b"not a database at all" * 300, b"\x7fELF" + bytes(8000)])
def test_file_that_is_no_database_is_unavailable(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BangerError, match="damaged, or is not a database") as raised:
        Store(path)
    assert raised.value.kind is ErrorKind.UNAVAILABLE
    assert "backup" in raised.value.hint
    assert path.read_bytes() == content


def test_database_with_damaged_pages_is_unavailable_not_a_bug(path: Path) -> None:
    store = Store(path)
    for number in range(60):
        store.vms.insert(vm(f"n{number}"))
    store.close()
    data = bytearray(path.read_bytes())
    for page in range(4096 * 6, len(data), 4096):
        data[page : page + 64] = b"\xa5" * 64
    path.write_bytes(data)
    with pytest.raises(BangerError, match="damaged") as raised:
        Store(path).vms.all()
    assert raised.value.kind is ErrorKind.UNAVAILABLE


def test_database_of_a_newer_banger_is_left_alone(path: Path) -> None:
    Store(path).close()
    other = database.sqlite.connect(str(path), isolation_level=None)
    other.execute("PRAGMA user_version = 999")
    other.close()
    with pytest.raises(BangerError, match="belongs to a newer banger") as raised:
        Store(path)
    assert raised.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize("kind", ["directory", "missing directory"])
def test_place_where_no_database_can_be_is_told(path: Path, kind: str) -> None:
    where = path / "deeper" if kind == "missing directory" else path
    if kind == "directory":
        path.mkdir()
    with pytest.raises(BangerError, match="the store") as raised:
        Store(where)
    assert raised.value.kind is ErrorKind.UNAVAILABLE


def test_store_that_cannot_be_written_is_denied(path: Path, store: Store) -> None:
    read_only = sqlite_of(f"file:{path}?mode=ro")
    with pytest.raises(BangerError, match="cannot be written") as raised, failures.told(path):
        read_only.execute("DELETE FROM vms")
    read_only.close()
    assert raised.value.kind is ErrorKind.DENIED
    assert len(store.vms.all()) == 1


@pytest.mark.parametrize(
    ("words", "free", "kind"),
    [
        ("database or disk is full", 1 << 30, ErrorKind.EXHAUSTED),
        ("disk I/O error", 0, ErrorKind.EXHAUSTED),
        ("disk I/O error", 1 << 30, ErrorKind.UNAVAILABLE),
        ("unable to open database file", 0, ErrorKind.EXHAUSTED),
        ("something that nobody has heard of", 1 << 30, ErrorKind.UNAVAILABLE),
    ],
)
def test_lack_of_room_is_told_from_a_broken_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch, words: str, free: int, kind: ErrorKind
) -> None:
    monkeypatch.setattr(failures, "_is_full", lambda _: free < failures.ROOM_BYTES)
    assert failures.meaning(database.sqlite.OperationalError(words), path).kind is kind


def sqlite_of(uri: str) -> Any:
    return database.sqlite.connect(uri, uri=True)
