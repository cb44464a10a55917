"""Templates over fake machines: when one is made, what goes on from it, and that nobody notices if it does not do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta

import pytest
from freezegun import freeze_time

from banger.actors.messages import (
    CreateVm,
    DeleteImage,
    DeleteTemplate,
    DeleteVm,
    GrowVm,
    Prune,
    PullImage,
    ReconcileHost,
    StartVm,
    StopVm,
)
from banger.actors.template_keeper import TemplateKeeper
from banger.config import KEYS, Config, Setting
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus
from banger.core.models import VmState
from banger.core.names import new_id
from banger.core.ports import ImageRequest
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vm_spec import InitChoice, VmSpec
from banger.sessions.exec import ExecService
from banger.store.leases import directory_key
from tests.support.copied_guest import CopiedGuest
from tests.support.fake_vmm import FRESH_MEMORY, Fault
from tests.support.owned_vms import create
from tests.support.saved_vms import copied_guests, disk_of, memory_of, read, write
from tests.support.scripted_guest import ScriptedProcess
from tests.support.waiting import eventually

BY_NAME = {key.name: key for key in KEYS}


@pytest.fixture
def world(vm_world):
    vm_world.copies = copied_guests(vm_world)
    vm_world.asked = []
    submit = vm_world.services.submit

    def noting(*command):
        vm_world.asked.append(submit(*command))
        return vm_world.asked[-1]

    vm_world.services = replace(vm_world.services, submit=noting)
    vm_world.keeper = TemplateKeeper(vm_world.services, lambda: bool(vm_world.operations.active()))
    yield vm_world
    settle(vm_world)
    for vm in vm_world.store.vms.all():
        vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    for one in vm_world.store.templates.all():
        vm_world.do(DeleteTemplate(one.key, one.id))
    assert vm_world.leftovers() == []
    assert vm_world.store.leases.held() == set()


def tick(world) -> None:
    """Let the keeper look once nothing is going on, and what it asked for be done."""
    settle(world)
    world.keeper.tick()
    settle(world)


def settle(world) -> None:
    """Until all is done that parts of the daemon asked each other for."""
    eventually(lambda: all(one.answered for one in world.asked), what="nothing is going on")
    eventually(lambda: not world.operations.active(), what="nothing is going on")


def start_twice(world, **spec) -> None:
    for _ in range(2):
        vm = create(world, "early", start=True, **spec)
        world.do(DeleteVm(vm.id, vm.name, force=True))


@pytest.fixture
def template(world):
    """That of what is started with nothing but its image; its memory and disk say so."""
    start_twice(world)
    world.vmm.while_saving = lambda: [write(world, vm, "booted") for vm in world.store.vms.all() if vm.makes_template]
    tick(world)
    world.vmm.while_saving = lambda: None
    (made,) = world.store.templates.all()
    return made


def is_from(template, vm) -> bool:
    return vm.from_template == template.id


# -- making ----------------------------------------------------------------------------------------------


def test_template_is_made_once_something_was_started_twice_within_a_day(world):
    vm = create(world, start=True)
    world.do(DeleteVm(vm.id, vm.name, force=True))
    tick(world)
    assert world.store.templates.all() == []

    create(world, start=True)
    tick(world)

    (made,) = world.store.templates.all()
    assert made.snapshot.memory_mib == vm.spec.memory_mib
    assert [vm.name for vm in world.store.vms.all()] == ["web"]  # what it was made of is gone


def test_starts_that_are_further_apart_make_no_template(world):
    start_twice(world)
    with freeze_time(clock.now() + timedelta(hours=25), tick=True):
        tick(world)
        vm = create(world, start=True)
        assert not world.store.templates.all()
        world.do(DeleteVm(vm.id, vm.name, force=True))
        tick(world)
    assert not world.store.templates.all()


def test_what_is_booted_for_a_template_has_nothing_of_a_users(world):
    start_twice(world, env=("TOKEN=secret",), user="me", hostname="mine", labels={"a": "b"}, ports=(PortForward(80),))
    tick(world)
    (made,) = world.store.templates.all()
    spec = made.snapshot.spec
    assert (spec.env, spec.user, spec.hostname, dict(spec.labels), spec.ports, spec.command) == (
        (),
        "",
        "",
        {},
        (),
        None,
    )


def test_nobody_sees_what_is_booted_for_a_template(world):
    start_twice(world)
    seen = []
    world.vmm.while_saving = lambda: seen.append((world.store.vms.of_users(), world.store.vms.all()))
    tick(world)
    ((of_users, (own,)),) = seen
    assert of_users == []
    world.store.vms.insert(own)
    with pytest.raises(BangerError, match="not found"):
        world.store.vms.find(own.name)
    world.store.vms.delete(own.id)


def test_no_template_is_made_while_somebody_waits_for_something(world):
    start_twice(world)
    settle(world)
    TemplateKeeper(world.services, lambda: True).tick()
    settle(world)
    assert not world.store.templates.all()


@pytest.mark.parametrize("short", ["memory", "disk"])
def test_no_template_is_made_where_there_is_no_room_for_it(world, monkeypatch, short):
    start_twice(world)
    if short == "memory":
        scarce = type("Memory", (), {"available_mib": 600})()
        monkeypatch.setattr("banger.actors.template_keeper.memory", lambda: scarce)
    else:
        full = type("Usage", (), {"free": 1200 << 20})()
        monkeypatch.setattr("banger.actors.template_keeper.shutil.disk_usage", lambda _: full)
    tick(world)
    assert not world.store.templates.all()


def test_one_that_cannot_be_made_is_not_tried_again_at_once(world):
    start_twice(world)
    world.vmm.cannot_save = "not today"
    tick(world)
    world.vmm.cannot_save = ""
    tick(world)
    assert not world.store.templates.all()
    with freeze_time(clock.now() + timedelta(hours=2), tick=True):
        tick(world)
    assert len(world.store.templates.all()) == 1


def test_machine_is_saved_only_once_its_guest_has_come_to_rest(world, monkeypatch):
    monkeypatch.setattr("banger.actors.settling._LOOK_S", 0.01)
    looks = []

    class Busy(CopiedGuest):
        async def exec(self, request):
            async def busy(process):
                looks.append(request)
                return ExitStatus(0 if len(looks) > 2 else 1)

            return ScriptedProcess(busy)

    session = world.guests.sessions
    world.guests.sessions = lambda vm: Busy() if vm.makes_template else session(vm)
    saved_after = []
    world.vmm.while_saving = lambda: saved_after.append(len(looks))
    start_twice(world)
    tick(world)
    assert saved_after == [3]


def test_guest_that_never_comes_to_rest_is_no_template(world, monkeypatch):
    monkeypatch.setattr("banger.actors.settling.LIMIT_S", 0.05)
    monkeypatch.setattr("banger.actors.settling._LOOK_S", 0.01)

    class Restless(CopiedGuest):
        async def exec(self, request):
            async def busy(process):
                return ExitStatus(1)

            return ScriptedProcess(busy)

    session = world.guests.sessions
    world.guests.sessions = lambda vm: Restless() if vm.makes_template else session(vm)
    start_twice(world)
    tick(world)
    assert world.store.templates.all() == []
    assert world.store.vms.all() == []


# -- going on from one -----------------------------------------------------------------------------------


def test_later_vm_goes_on_from_it_as_a_machine_of_its_own(world, template):
    vm = create(world, start=True)

    assert is_from(template, vm)
    assert read(world, vm) == ("booted", "booted")
    guest = world.copies[vm.id]
    assert (guest.now.hostname, guest.now.vm_id) == ("web", vm.id)
    assert world.store.templates.get(template.id).uses == 1
    assert "renew random numbers" in [step.name for step in vm.timings]


def test_created_vm_that_never_ran_goes_on_from_it_when_it_is_started(world, template):
    vm = create(world)
    assert disk_of(world, vm).read_text() == ""
    vm = world.do(StartVm(vm.id, vm.name))
    assert is_from(template, vm)
    assert read(world, vm) == ("booted", "booted")


def test_vm_that_has_run_boots_with_its_own_disk(world, template):
    vm = create(world, start=True)
    write(world, vm, "mine")
    world.do(StopVm(vm.id, vm.name))
    vm = world.do(StartVm(vm.id, vm.name))
    assert vm.from_template == ""
    assert read(world, vm) == (FRESH_MEMORY, "mine")


def test_vms_of_a_template_share_nothing_and_leave_it_as_it_was(world, template):
    one, two = create(world, "one", start=True), create(world, "two", start=True)
    write(world, one, "of one")
    assert read(world, two) == ("booted", "booted")
    assert read(world, create(world, "three", start=True)) == ("booted", "booted")


@pytest.mark.parametrize(
    "other",
    [
        {"memory_mib": 1024},
        {"cpus": 2},
        {"disk_mib": 20480},
        {"init": InitChoice.NONE},
        {"machine": "q35"},
        {"accelerator": "kvm"},
        {"cold": True},
        {"network": "none"},
        {"kernel": "another"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_vm_of_another_kind_boots(world, template, other):
    vm = create(world, start=True, **other)
    assert vm.from_template == ""
    assert memory_of(world, vm).read_text() == FRESH_MEMORY


def test_vm_that_was_grown_before_it_ran_boots(world, template):
    vm = create(world)
    world.do(GrowVm(vm.id, vm.name, 20480))
    assert world.do(StartVm(vm.id, vm.name)).from_template == ""


def test_image_that_has_moved_on_is_another_one(world, template):
    world.images.digests["alpine"] = "sha256:moved"
    world.do(PullImage("alpine", ImageRequest("alpine"), refresh=True))
    assert create(world, start=True).from_template == ""
    assert world.store.templates.all() == []  # it went with its image
    world.do(ReconcileHost(at_start=True))
    assert world.leftovers() == []


def test_template_keeps_nobody_from_deleting_its_image(world, template):
    (image,) = world.store.images.all()
    world.do(DeleteImage("alpine", image.id))
    assert world.store.templates.all() == []
    world.do(ReconcileHost(at_start=True))
    assert world.leftovers() == []


def asked_of(world, vm) -> list[tuple[str, ...]]:
    """What its guest was asked to run besides hooks: the arguments of scripts, without these."""
    return [run.argv[3:] for run in world.copies[vm.id].ran if run.argv[1:2] == ("-c",)]


def test_spec_of_a_vm_reaches_its_guest_although_that_has_booted_already(world, template):
    spec = VmSpec("alpine", env=("A=b c",), workdir="/srv", user="me", command=("serve", "it"))
    vm = world.do(CreateVm(new_id(), "web", spec, start=True))

    assert is_from(template, vm)
    assert asked_of(world, vm)[-2:] == [
        ("configure", "/srv"),
        ("command", "banger-exec -u me -w /srv -- serve it"),
    ]
    with_it = ExecService(world.store, world.guests, None).completed(vm, ExecRequest(("true",), env=("B=c",)))
    assert (with_it.env, with_it.user, with_it.workdir) == (("A=b c", "B=c"), "me", "/srv")


def test_guest_of_a_plain_spec_is_told_nothing_more(world, template):
    vm = create(world, start=True)
    assert [words for words in asked_of(world, vm) if words] == []


def test_ports_and_host_name_are_those_of_a_cold_start(world, template):
    vm = create(world, start=True, ports=(PortForward(80),), hostname="web.example")
    assert is_from(template, vm)
    assert [port.guest_port for port in vm.ports] == [80]
    assert world.copies[vm.id].now.hostname == "web.example"


# -- if it does not do -----------------------------------------------------------------------------------


def damage(world, template) -> None:
    world.vmm.faults["web"] = Fault.DIES


def lose(world, template) -> None:
    shutil.rmtree(world.layout.template_dir(template.id))


def confuse(world, template) -> None:
    session = world.guests.sessions
    world.guests.sessions = lambda vm: CopiedGuest("machine-id") if vm.from_template else session(vm)


@pytest.mark.parametrize("spoil", [damage, lose, confuse])
@pytest.mark.parametrize("is_new", [True, False], ids=["created", "started"])
def test_vm_boots_if_its_template_does_not_do_and_that_goes(world, template, spoil, is_new):
    before = None if is_new else create(world)
    spoil(world, template)
    vm = create(world, start=True) if before is None else world.do(StartVm(before.id, before.name))

    assert (vm.state, vm.from_template, vm.reason) == (VmState.RUNNING, "", "")
    assert read(world, vm) == (FRESH_MEMORY, "")
    settle(world)
    assert world.store.templates.all() == []
    tick(world)
    assert world.store.templates.all() == [], "it is not made again at once"


def test_start_that_a_boot_would_not_survive_either_fails_as_a_boot_does(world, template):
    world.vmm.faults["web"] = Fault.REFUSED  # a conflict
    with pytest.raises(BangerError, match="refused"):
        create(world, start=True)
    assert [one.id for one in world.store.templates.all()] == [template.id]


def test_created_vm_whose_start_failed_begins_anew_the_next_time(world, template):
    vm = create(world)
    world.vmm.faults["web"] = Fault.REFUSED
    with pytest.raises(BangerError, match="refused"):
        world.do(StartVm(vm.id, vm.name))
    world.do(DeleteTemplate(template.key, template.id))
    vm = world.do(StartVm(vm.id, vm.name))
    assert vm.from_template == ""
    assert read(world, vm) == (FRESH_MEMORY, "")  # not the disk of a template that it was given in vain


# -- deleting --------------------------------------------------------------------------------------------


def test_template_is_not_deleted_under_a_vm_that_is_being_made_from_it(world, template):
    world.store.leases.take("somebody", [directory_key(template.id)])
    with pytest.raises(BangerError) as caught:
        world.do(DeleteTemplate(template.key, template.id))
    assert caught.value.kind is ErrorKind.CONFLICT
    world.store.leases.drop("somebody")


def test_vm_goes_on_when_its_template_is_pruned(world, template):
    vm = create(world, start=True)
    assert world.do(Prune(nouns=("template",))).removed == []
    report = world.do(Prune(nouns=("template",), unused=True))
    assert report.removed == [f"template {template.id}"]
    assert report.freed_bytes > 0
    assert world.reconcile(vm).state is VmState.RUNNING
    assert world.leftovers() == []


def test_template_that_nobody_uses_goes_after_a_week(world, template):
    with freeze_time(clock.now() + timedelta(days=6), tick=True):
        tick(world)
        vm = create(world, start=True)
        assert is_from(template, vm)
    with freeze_time(clock.now() + timedelta(days=12), tick=True):
        tick(world)
        assert world.store.templates.all()
    with freeze_time(clock.now() + timedelta(days=14), tick=True):
        tick(world)
    assert world.store.templates.all() == []


def test_the_one_that_was_used_longest_ago_goes_first_when_the_host_runs_out_of_room(world, template, monkeypatch):
    start_twice(world, memory_mib=1024)
    tick(world)
    create(world, start=True)  # from the first
    full = type("Usage", (), {"free": 1000 << 20})()
    monkeypatch.setattr("banger.actors.template_keeper.shutil.disk_usage", lambda _: full)
    tick(world)
    assert [one.id for one in world.store.templates.all()] == [template.id]


def test_templates_are_neither_made_nor_used_nor_kept_when_they_are_off(world, template):
    settings = world.services.config
    off = {one.key.name: one for one in settings} | {"run.templates": Setting(BY_NAME["run.templates"], "off", "x")}
    world.services = replace(world.services, config=Config(off))
    world.keeper = TemplateKeeper(world.services, lambda: False)
    assert create(world, start=True).from_template == ""
    tick(world)
    assert world.store.templates.all() == []


def test_template_of_another_release_of_its_vmm_goes_when_the_daemon_starts(world, template, monkeypatch):
    monkeypatch.setattr(type(world.vmm), "version", lambda _: "2.0.0")
    world.keeper.begin()
    settle(world)
    assert world.store.templates.all() == []
