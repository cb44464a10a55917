"""Records and answers of a later version of banger have fields that this one does not know. They are read all the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from banger.actors.vm_teardown import find_process
from banger.client.artifacts import typed
from banger.config import Config
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.evidence import Happened, Incident
from banger.core.models import ProcessIdentity, Vm, VmState
from banger.core.ports import Handle
from banger.core.wire.vm_spec import VmSpec
from banger.host.evidence.store import EvidenceStore
from banger.layout import Layout
from banger.storage.home_disk import HomeDisk
from banger.storage.snapshot_files import SnapshotFiles, SnapshotGeometry
from tests.support.fake_api import vm_json


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    return layout


def newer(plain: Any) -> Any:
    """As a later version has it: something more in every object."""
    if isinstance(plain, dict):
        return {**{key: newer(value) for key, value in plain.items()}, "from_the_future": [1]}
    return [newer(item) for item in plain] if isinstance(plain, list) else plain


def test_answer_about_a_vm_is_understood_by_an_older_sdk() -> None:
    row = vm_json("web")
    del row["spec"]["labels"]  # a mapping of the user's own
    assert typed(Vm, newer(row)) == typed(Vm, row)


def test_home_disk_has_its_record(layout: Layout) -> None:
    homes = HomeDisk(layout, Config.load(layout.config_file, {}))
    layout.homes.mkdir()
    homes.path("work").touch()
    record = {"name": "work", "vm_id": "abc", "owner_uid": 7, "image": "debian"}
    homes.path("work").with_name("work.json").write_text(json.dumps(newer(record)))
    (home,) = homes.homes()
    assert (home.vm_id, home.owner_uid, home.broken) == ("abc", 7, "")


def test_snapshot_has_its_sizes(tmp_path: Path) -> None:
    files = SnapshotFiles(tmp_path)
    files.make(SnapshotGeometry(64 << 20, 100))
    for record in tmp_path.glob("*.json"):
        record.write_text(json.dumps(newer(json.loads(record.read_text()))))
    assert files.geometry() == SnapshotGeometry(64 << 20, 100)


def test_process_is_found_by_its_handle() -> None:
    identity = ProcessIdentity(42, 7, "boot", "marker")
    detail = newer({"pid": 42, "start_ticks": 7, "boot_id": "boot", "marker": "marker"})
    processes = SimpleNamespace(is_alive=lambda one: one == identity)
    services: Any = SimpleNamespace(vms=SimpleNamespace(vmms=SimpleNamespace(processes=processes)))
    assert find_process(services, [Handle("vm", "process", "marker", "made", detail)]) == (identity, True)


def test_evidence_is_shown(layout: Layout) -> None:
    vm = Vm("feedfacecafe", "web", VmSpec("debian"), VmState.STARTING, clock.now())
    layout.vm_dir(vm.id).mkdir()
    EvidenceStore(layout).keep(Incident(Happened.START, vm, "no luck", error=BangerError(ErrorKind.UNAVAILABLE, "m")))
    (file,) = layout.evidence.iterdir()
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "from_the_future": 1, "vm": {**record["vm"], "from_the_future": 1}}))
    (kept,) = EvidenceStore(layout).all()
    assert (kept.vm.name, kept.words) == (vm.name, "no luck")
