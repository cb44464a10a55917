"""Rows that another version wrote, or that were damaged, hide nobody and lose nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pysqlite3 import dbapi2 as sqlite3

from banger.core import clock
from banger.core.models import Vm, VmState
from banger.core.wire.vm_spec import VmSpec
from banger.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "banger.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    for name in ("odd", "sound"):
        store.vms.insert(Vm(f"id-{name}", name, VmSpec("debian", cpus=2), VmState.STOPPED, clock.now()))
    yield store
    store.close()


def damage(path: Path, column: str, value: object) -> None:
    """By the store's own copy of SQLite: of two in one process, each takes away the other's locks."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE vms SET {column} = ? WHERE name = 'odd'", (value,))


def test_fields_of_a_later_version_are_passed_over(path: Path, store: Store) -> None:
    spec = json.dumps({"image": "debian", "cpus": 3, "from_the_future": {"deep": [1]}})
    damage(path, "spec", spec)
    assert store.vms.find("odd").spec == VmSpec("debian", cpus=3)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("spec", '{"image": "debian", "ttl_s": NaN}'), ("spec", "{"), ("spec", "[]"), ("spec", '{"cpus": 1}'),
        ("state", "hibernating"), ("created_at", "yesterday"), ("timings", '{"a": 1}'), ("ports", "null"),
        ("exit_reason", "alien"),
    ],
)  # fmt: skip
def test_row_that_cannot_be_read_is_still_there_and_hides_no_other(
    path: Path, store: Store, column: str, value: object
) -> None:
    damage(path, column, value)
    assert [vm.name for vm in store.vms.all()] == ["odd", "sound"] or column == "created_at"
    assert {vm.name for vm in store.vms.all()} == {"odd", "sound"}
    odd = store.vms.find("odd")
    json.dumps(odd.spec.ttl_s, allow_nan=False)
    assert store.vms.find("sound").spec.cpus == 2


def test_state_that_nobody_knows_reads_as_failed(path: Path, store: Store) -> None:
    damage(path, "state", "hibernating")
    assert store.vms.find("odd").state is VmState.FAILED


def test_row_that_somebody_changed_is_read_anew(path: Path, store: Store) -> None:
    assert [vm.pid for vm in store.vms.all()] == [0, 0]
    damage(path, "pid", 7)
    assert [vm.pid for vm in store.vms.all()] == [7, 0]
    damage(path, "state", "hibernating")
    assert store.vms.find("odd").state is VmState.FAILED
    damage(path, "state", "stopped")
    assert store.vms.find("odd").state is VmState.STOPPED
