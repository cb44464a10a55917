"""Routes of snapshots over real owners and fake machines, and the SDK on top of them."""

from __future__ import annotations

import pytest

from banger import Banger
from banger.client import path_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.port_forward import PortForward
from tests.support.fakes import World
from tests.support.saved_vms import copied_guests, read, write
from tests.support.served import Served


@pytest.fixture
def served(tmp_path):
    world = World(tmp_path)
    copied_guests(world)
    served = Served(world)
    yield served
    for vm in world.store.vms.all():
        served.client.long("DELETE", path_of("vms", vm.id), {"force": True})
    for snapshot in world.store.snapshots.all():
        served.client.long("DELETE", path_of("snapshots", snapshot.id))
    served.close()
    assert world.leftovers() == []
    world.stop()


@pytest.fixture
def sdk(served, tmp_path):
    return Banger(tmp_path, start_daemon=False)


@pytest.fixture
def web(sdk, served):
    """A running machine with something in its memory and on its disk."""
    machine = sdk.machine("alpine", name="web", ports=[PortForward(80)])
    write(served.world, machine.info, "first")
    return machine


def post(served, *path, **body):
    return served.client.long("POST", path_of(*path), None, body)


def failure_of(served, *path, **body) -> BangerError:
    with pytest.raises(BangerError) as caught:
        post(served, *path, **body)
    return caught.value


def contents(served, machine):
    return read(served.world, machine.info)


def test_snapshot_is_taken_shown_restored_and_deleted(served, sdk, web):
    taken = web.snapshot("ready")
    write(served.world, web.info, "later")
    again = sdk.vms.restore("ready", name="again")

    assert (contents(served, again), contents(served, web)) == (("first", "first"), ("later", "later"))
    [row] = served.client.get("/v1/snapshots")
    assert (row["name"], row["vm_name"], row["image_name"], row["vms"]) == ("ready", "web", "alpine", ["again"])
    assert (row["broken"], row["parent_name"]) == ("", "")
    assert sdk.snapshots.get("ready") == taken
    assert served.client.get(path_of("images", "alpine"))["snapshots"] == ["ready"]
    assert again.snapshot().parent_id == taken.id
    sdk.snapshots.delete("ready")
    assert [one.name for one in sdk.snapshots.list()] == ["again-1"]


def test_machine_is_rewound_to_its_newest_snapshot_or_to_one_of_its_own(served, sdk, web):
    web.snapshot("first")
    write(served.world, web.info, "second")
    web.snapshot("second")
    write(served.world, web.info, "third")
    ports = web.info.ports

    assert (contents(served, web.rewind()), web.info.ports) == (("second", "second"), ports)
    assert contents(served, web.rewind("first")) == ("first", "first")
    other = sdk.machine("alpine", name="other")
    assert failure_of(served, "vms", "other", "rewind").kind is ErrorKind.NOT_FOUND
    assert "vm restore first" in failure_of(served, "vms", "other", "rewind", snapshot="first").hint
    assert failure_of(served, "vms", "web", "rewind", snapshot="nothing").kind is ErrorKind.NOT_FOUND
    assert contents(served, web) == ("first", "first")
    other.delete(force=True)


def test_snapshot_goes_through_a_file_with_its_name_or_another_one(served, sdk, web, tmp_path):
    web.snapshot("ready")
    sdk.snapshots.export("ready", tmp_path / "file")
    sdk.snapshots.delete("ready")
    assert sdk.snapshots.import_file(tmp_path / "file").name == "ready"
    assert sdk.snapshots.import_file(tmp_path / "file", name="other").vm_id == web.id
    assert contents(served, sdk.vms.restore("other", name="again")) == ("first", "first")
    assert failure_of(served, "snapshots", "import", path="file").kind is ErrorKind.USAGE
    assert failure_of(served, "snapshots", "import", path=str(tmp_path / "none")).kind is ErrorKind.NOT_FOUND


def test_forks_are_numbered_or_named_by_a_pattern(served, sdk, web):
    assert [fork.name for fork in web.fork()] == ["web-1"]
    assert [fork.name for fork in web.fork(2)] == ["web-2", "web-3"]
    assert [fork.name for fork in web.fork(2, name="worker-{n}")] == ["worker-1", "worker-2"]
    assert [fork.name for fork in web.fork(name="copy")] == ["copy"]
    web.snapshot("ready")
    assert [fork.name for fork in sdk.vms.fork("ready", 2)] == ["web-4", "web-5"]
    assert all(contents(served, sdk.vms.get(f"web-{n}")) == ("first", "first") for n in range(1, 6))
    assert sdk.vms.restore("ready").name == "web-6"


def test_snapshot_without_a_name_is_numbered(web):
    assert [web.snapshot().name for _ in range(2)] == ["web-1", "web-2"]


def test_restored_machine_publishes_what_is_asked_for_and_nothing_else(sdk, web):
    assert web.info.ports
    web.snapshot("ready")
    assert sdk.vms.restore("ready", name="without").info.ports == ()
    assert [port.guest_port for port in sdk.vms.restore("ready", name="with", ports=[PortForward(81)]).info.ports] == [
        81
    ]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"count": 2, "name": "one"}, ErrorKind.USAGE, "one-{n}"),
        ({"count": 0}, ErrorKind.USAGE, "1 to 100"),
        ({"count": 101}, ErrorKind.USAGE, "100"),
        ({"count": 2, "name": "{n}-x"}, ErrorKind.USAGE, "starting with a letter"),
        ({"count": 2, "name": "web{n}{m}"}, ErrorKind.USAGE, "starting with a letter"),
        ({"name": "web"}, ErrorKind.ALREADY_EXISTS, "banger vm show web"),
        ({"count": 2, "ports": [{"guest_port": 80, "host_port": 8080}]}, ErrorKind.USAGE, "-p 80"),
        ({"ports": [{"guest_port": 0}]}, ErrorKind.USAGE, "8080:80"),
    ],
)
def test_fork_that_makes_no_sense_is_refused_with_what_does(served, sdk, web, body, kind, words):
    error = failure_of(served, "vms", "web", "fork", **body)
    assert error.kind is kind
    assert words in error.hint
    assert [machine.name for machine in sdk.vms.list()] == ["web"]


def test_wrong_names_of_snapshots_are_refused(served, sdk, web):
    web.snapshot("ready")
    assert failure_of(served, "vms", "web", "snapshots", name="Ready!").kind is ErrorKind.USAGE
    assert failure_of(served, "vms", "web", "snapshots", name="ready").kind is ErrorKind.ALREADY_EXISTS
    assert failure_of(served, "vms", "nobody", "snapshots").kind is ErrorKind.NOT_FOUND
    assert failure_of(served, "snapshots", "nothing", "restore").kind is ErrorKind.NOT_FOUND
    assert failure_of(served, "snapshots", "ready", "restore", name="web").kind is ErrorKind.ALREADY_EXISTS
    with pytest.raises(BangerError) as caught:
        sdk.snapshots.delete("nothing")
    assert caught.value.hint == "banger snapshot list"


def test_disk_usage_counts_snapshots(served, web):
    before = served.client.get("/v1/system/df")["snapshots_bytes"]
    web.snapshot("ready")
    assert before == 0
    assert served.client.get("/v1/system/df")["snapshots_bytes"] > 0
