"""``why`` over a real socket: of VMs that are there and of those that are gone; and what it leaves on the disk."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from banger.actors.messages import CreateVm, DeleteVm
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from banger.sdk import Vms
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.served import Served

PANIC = "banger: init 0.1\n[    1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"


@pytest.fixture
def served(tmp_path):
    world = World(tmp_path, FakeVmm())
    served = Served(world)
    yield served
    world.images.gate.open()
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    served.close()
    world.stop()


@pytest.fixture
def vms(served):
    return Vms(served.client, served.world.layout)


def fail_to_start(served, name="web", **spec):
    served.world.vmm.console = PANIC
    with pytest.raises(BangerError):
        served.world.do(CreateVm(new_id(), name, VmSpec("alpine", **spec), start=True))


def test_why_of_a_vm_that_is_gone_tells_how_it_went(served, vms):
    fail_to_start(served, ephemeral=True, env=("TOKEN=open sesame",))
    answer = vms.why("web")
    assert answer["vm"]["state"] == "gone"
    assert "Unable to mount root" in answer["why"]
    assert answer["evidence"]["accelerator"] == "tcg"
    assert answer["evidence"]["versions"]["banger"]
    assert answer["console"][-1].endswith("unknown-block(0,0)")
    assert answer["others"] == []
    assert answer["vm"]["timings"][-1]["failed"] is True
    assert vms.why(answer["evidence"]["id"])["why"] == answer["why"]
    assert "sesame" not in json.dumps(answer)


def test_why_tells_what_the_vmm_has_counted_and_still_does_when_the_vm_is_gone(served, vms):
    vm = served.world.do(CreateVm(new_id(), "web", VmSpec("alpine")))
    assert vms.why("web")["error_counters"] == {}
    served.world.vmm.counted = {"block_data.execute_fails": 2}
    assert vms.why("web")["error_counters"] == {"block_data.execute_fails": 2}
    served.world.vmm.console = PANIC
    with pytest.raises(BangerError):
        served.client.long("POST", f"/v1/vms/{vm.id}/start")
    served.world.do(DeleteVm(vm.id, vm.name, force=True))
    assert vms.why("web")["error_counters"] == {"block_data.execute_fails": 2}


def test_why_of_a_name_that_several_had_tells_of_the_newest_and_names_the_others(served, vms):
    fail_to_start(served)
    first = vms.evidence()[0]["id"]
    fail_to_start(served)
    answer = vms.why("web")
    assert answer["evidence"]["id"] == vms.evidence()[0]["id"] != first
    assert [one["id"] for one in answer["others"]] == [first]


def test_why_of_a_vm_that_is_there_tells_of_its_last_failure_too(served, vms):
    vm = served.world.do(CreateVm(new_id(), "web", VmSpec("alpine")))
    assert vms.why("web")["evidence"] is None
    served.world.vmm.console = PANIC
    with pytest.raises(BangerError):
        served.client.long("POST", f"/v1/vms/{vm.id}/start")
    answer = vms.why("web")
    assert "Unable to mount root" in answer["evidence"]["words"]
    assert answer["why"].startswith("stopped")


def test_why_of_nobody_is_not_found(served, vms):
    fail_to_start(served)
    with pytest.raises(BangerError) as caught:
        vms.why("nobody")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_record_in_full_and_the_disk_that_it_takes(served):
    fail_to_start(served)
    record = served.client.get("/v1/evidence/web")
    assert record["console"] == PANIC
    assert served.client.get("/v1/system/df")["evidence_bytes"] > 0


@pytest.mark.parametrize("is_there", [True, False])
def test_bundle_is_a_tar_of_what_is_known(served, vms, is_there):
    if is_there:
        served.world.do(CreateVm(new_id(), "web", VmSpec("alpine", env=("TOKEN=open sesame",))))
    else:
        fail_to_start(served, env=("TOKEN=open sesame",))
    packed = vms.bundle("web")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        texts = {member.name.partition("/")[2]: tar.extractfile(member).read().decode() for member in tar}
    assert json.loads(texts["evidence.json"])["vm"]["name"] == "web"
    assert ("Unable to mount root" in texts["console.log"]) is not is_there
    assert not any("sesame" in text for text in texts.values())
