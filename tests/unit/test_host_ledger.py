"""The ledger: the file is never behind the rows, and the rows are brought up to date from it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmState
from banger.core.ports import Handle
from banger.core.wire.vm_spec import VmSpec
from banger.host.journal import Journal, put
from banger.host.ledger import Ledger
from banger.layout import Layout
from banger.store import Store

VM_ID = "feedfacecafe"


class World:
    def __init__(self, home: Path) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(home)})
        self.layout.make_directories()
        self.store = Store(self.layout.database)
        self.vm = Vm(VM_ID, "web", VmSpec("debian"), VmState.STOPPED, clock.now())
        self.store.vms.insert(self.vm)
        self.layout.vm_dir(VM_ID).mkdir()
        self.ledger = Ledger(self.store.handles, self.layout)
        self.journal = Journal(self.layout.vm_dir(VM_ID) / "handles.journal")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_intended_is_in_the_file_before_it_is_in_the_store(world: World, monkeypatch) -> None:
    seen = []
    insert = world.store.handles.put
    monkeypatch.setattr(
        world.store.handles, "put", lambda handle: (seen.append(world.journal.read(VM_ID).handles), insert(handle))
    )
    world.ledger.of(VM_ID).intend("tap", "bg0")
    assert list(seen[0]) == [("tap", "bg0")]


def test_crash_between_file_and_store_is_made_good_by_recover(world: World) -> None:
    handle = Handle(VM_ID, "tap", "bg0", "intended", {})
    world.journal.append(put(handle))
    assert world.ledger.recover(VM_ID)
    assert world.ledger.of(VM_ID).of() == [handle]
    assert not world.ledger.recover(VM_ID)


def test_recover_believes_the_file_about_what_both_know_and_keeps_what_only_the_rows_know(world: World) -> None:
    world.store.handles.put(Handle(VM_ID, "process", "marker", "active", {"pid": 1}))
    world.store.handles.put(Handle(VM_ID, "loop", "disk", "active", {}))
    world.journal.append(put(Handle(VM_ID, "process", "marker", "active", {"pid": 2})))
    world.ledger.recover(VM_ID)
    assert {(handle.kind, handle.detail.get("pid")) for handle in world.ledger.all()} == {
        ("process", 2),
        ("loop", None),
    }


def test_strike_crosses_out_in_both_and_costs_nothing_when_there_is_nothing(world: World) -> None:
    mine = world.ledger.of(VM_ID)
    mine.strike("tap")
    assert not (world.layout.vm_dir(VM_ID) / "handles.journal").exists()
    mine.intend("tap", "bg0")
    mine.intend("tap", "bg1")
    mine.strike("tap", "bg0")
    assert [handle.key for handle in mine.of()] == ["bg1"]
    assert list(world.journal.read(VM_ID).handles) == [("tap", "bg1")]


def test_strike_of_a_vm_whose_directory_is_gone_clears_the_rows(world: World) -> None:
    world.store.handles.put(Handle(VM_ID, "tap", "bg0", "active", {}))
    world.layout.vm_dir(VM_ID).rmdir()
    world.ledger.of(VM_ID).strike("tap")
    assert world.ledger.all() == []


def test_strike_needs_no_room_and_anything_else_tells_that_there_is_none(world: World, monkeypatch) -> None:
    world.ledger.of(VM_ID).intend("tap", "bg0")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    monkeypatch.setattr(Journal, "begin", full)
    for write in (lambda: world.ledger.of(VM_ID).intend("tap", "bg1"), lambda: world.ledger.begin(world.vm)):
        with pytest.raises(BangerError) as caught:
            write()
        assert caught.value.kind is ErrorKind.EXHAUSTED
    world.ledger.of(VM_ID).strike("tap")
    assert world.ledger.all() == []


def test_begin_keeps_what_is_held_and_the_vms_own_record(world: World) -> None:
    world.ledger.of(VM_ID).activate("tap", "bg0", {"index": 7})
    world.ledger.begin(world.vm)
    recorded = world.ledger.recorded(VM_ID)
    assert recorded.vm is not None
    assert recorded.vm["name"] == "web"
    assert recorded.handles["tap", "bg0"].detail == {"index": 7}


def test_all_of_one_kind_are_found_without_the_others(world: World) -> None:
    for kind, key in (("tap", "bg0"), ("address", "10.0.0.2"), ("address", "10.0.0.3")):
        world.ledger.of(VM_ID).intend(kind, key)
    assert [handle.key for handle in world.ledger.all("address")] == ["10.0.0.2", "10.0.0.3"]
    assert [handle.key for handle in world.ledger.all()] == ["10.0.0.2", "10.0.0.3", "bg0"]
    assert world.ledger.all("process") == []
