"""Snapshots over fake machines: what a copy has, what its parent keeps, and what is refused before anything is touched."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from banger.actors import forks
from banger.actors.messages import (
    DeleteImage,
    DeleteKernel,
    DeleteVm,
    GrowVm,
    PauseVm,
    Prune,
    StartVm,
    StopVm,
)
from banger.actors.vm_machines import condition_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmState
from banger.core.ports import Drive, Health
from banger.core.snapshot_rules import PruneRule
from banger.core.wire.port_forward import PortForward
from banger.store.leases import directory_key
from tests.support.copied_guest import CopiedGuest
from tests.support.fake_capability import FakeCapability
from tests.support.fake_vmm import Fault
from tests.support.fakes import World
from tests.support.owned_vms import create, process_of
from tests.support.saved_vms import (
    checkpoint,
    copied_guests,
    delete_snapshot,
    disk_of,
    fork,
    forking,
    keep_checkpoints,
    read,
    restore,
    rewind,
    snapshot,
    write,
)


@pytest.fixture
def world(vm_world):
    vm_world.copies = copied_guests(vm_world)
    yield vm_world
    for vm in vm_world.store.vms.all():
        vm_world.do(DeleteVm(vm.id, vm.name, force=True))
    for taken in vm_world.store.snapshots.all():
        delete_snapshot(vm_world, taken)


@pytest.fixture
def vm(world):
    """A running VM with something in its memory and on its disk."""
    vm = create(world, start=True, ports=(PortForward(80),), hostname="web.example")
    write(world, vm, "first")
    return vm


def refused(world, vm, **wishes):
    """The error of a snapshot that is refused, which leaves nothing."""
    with pytest.raises(BangerError) as caught:
        snapshot(world, vm, **wishes)
    assert world.leftovers() == []
    assert world.store.leases.held() == set()
    return caught.value


def is_running(world, vm):
    return condition_of(world.services, vm, process_of(world, vm)).health is Health.RUNS


# -- taking ----------------------------------------------------------------------------------------------


def test_vm_goes_on_in_its_own_process_while_a_snapshot_is_taken(world, vm):
    before = process_of(world, vm)
    taken = snapshot(world, vm)

    assert process_of(world, vm) == before
    assert is_running(world, vm)
    assert (taken.vm_id, taken.vm_name, taken.parent_id) == (vm.id, "web", "")
    assert (taken.image_id, taken.kernel_id, taken.storage) == (vm.image_id, vm.kernel_id, "fake")
    assert (taken.vmm, taken.vmm_version, taken.memory_mib) == ("fake", "1.2.3", vm.spec.memory_mib)
    assert taken.memory_bytes > 0
    assert taken.disk_bytes > 0
    assert world.store.snapshots.all() == [taken]


def test_files_of_a_snapshot_are_nobody_elses(world, vm):
    directory = world.layout.snapshot_dir(snapshot(world, vm).id)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*"))}
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    assert modes["memory"] == 0o400


def test_stop_ends_the_vm_once_the_snapshot_is_there(world, vm):
    taken = snapshot(world, vm, stop=True)

    assert world.vm("web").state is VmState.STOPPED
    assert read(world, restore(world, taken, "again")) == ("first", "first")


def test_snapshot_of_a_stopped_vm_has_a_disk_alone_and_what_is_made_from_it_boots(world, vm):
    world.do(StopVm(vm.id, "web"))
    taken = snapshot(world, vm)
    assert (taken.memory_mib, taken.vmm, taken.memory_bytes) == (0, "", 0)

    again = restore(world, taken, "again")

    assert again.state is VmState.RUNNING
    assert world.vmm.launched[-1].saved is None
    assert disk_of(world, again).read_text() == "first"


def test_paused_vm_is_refused_with_what_helps(world, vm):
    world.do(PauseVm(vm.id, "web"))
    error = refused(world, vm)
    assert (error.kind, error.hint) == (ErrorKind.CONFLICT, "banger vm resume web")


def test_machine_that_cannot_be_saved_is_refused_with_its_drivers_words(world, vm):
    world.vmm.cannot_save = "it holds a device of the host"
    error = refused(world, vm)
    assert (error.kind, error.cause) == (ErrorKind.UNAVAILABLE, "it holds a device of the host")
    assert "vm stop web" in error.hint


def test_vm_with_a_disk_of_others_is_refused_by_the_name_of_that(tmp_path, vmm):
    class Shared(FakeCapability):
        def devices(self, vm):
            return (Drive,)

    world = World(tmp_path, vmm, capabilities=(Shared("home", tmp_path),))
    vm = create(world, start=True)
    error = refused(world, vm)
    assert error.kind is ErrorKind.CONFLICT
    assert "(home)" in error.cause
    world.do(DeleteVm(vm.id, vm.name, force=True))
    world.stop()


def test_name_that_is_taken_is_refused_before_the_vm_is_touched(world, vm):
    snapshot(world, vm, "snap")
    world.vmm.cannot_save = "it was asked"
    error = refused(world, vm, name="snap")
    assert (error.kind, error.hint) == (ErrorKind.ALREADY_EXISTS, "banger snapshot delete snap")


def test_name_that_nobody_chose_gives_way(world, vm):
    snapshot(world, vm, "web-1")
    assert snapshot(world, vm, "web-1", is_name_made_up=True).name == "web-2"


def test_save_that_fails_leaves_the_vm_as_it_was_and_nothing_else(world, vm):
    def full():
        raise BangerError(ErrorKind.EXHAUSTED, "the disk is full")

    world.vmm.while_saving = full
    before = process_of(world, vm)
    assert refused(world, vm).kind is ErrorKind.EXHAUSTED
    assert (process_of(world, vm), is_running(world, vm)) == (before, True)
    assert world.ledger.of(vm.id).of("saver") == []


def test_vm_that_ends_while_it_is_saved_is_told_and_leaves_nothing(world, vm):
    world.vmm.while_saving = lambda: world.vmm.kill(process_of(world, vm))
    assert refused(world, vm).kind is ErrorKind.CONFLICT
    assert world.reconcile(vm).state is VmState.STOPPED


# -- going on from one -----------------------------------------------------------------------------------


def test_restored_vm_has_memory_and_disk_of_that_instant_and_nothing_later(world, vm):
    taken = snapshot(world, vm)
    write(world, vm, "later")

    again = restore(world, taken, "again")

    assert read(world, again) == ("first", "first")
    assert read(world, vm) == ("later", "later")
    assert (again.state, again.forked_from, again.origin_snapshot) == (VmState.RUNNING, "web", taken.id)
    assert is_running(world, again)


def test_restored_vm_is_another_one_for_its_guest_and_says_what_that_took(world, vm):
    again = restore(world, snapshot(world, vm), "again")

    guest = world.copies[again.id].now
    assert (guest.hostname, guest.vm_id) == ("again", again.id)
    steps = [step.name for step in world.vm("again").timings]
    assert {"start VMM", "resume", "connect", "verify identity"} <= set(steps)
    assert "boot guest" not in steps


@pytest.mark.parametrize(("network", "has_card"), [("none", False), ("slirp", True)])
def test_card_is_renewed_where_there_is_one(world, network, has_card):
    vm = create(world, network=network, egress="open", start=True)
    [forked] = fork(world, vm, "fork")
    assert ("network card" in world.copies[forked.id].asked) is has_card


def test_vm_from_a_snapshot_does_not_take_over_what_only_one_can_have(world, vm):
    again = restore(world, snapshot(world, vm), "again")
    assert (again.spec.ports, again.spec.hostname, again.spec.ephemeral) == ((), "", False)
    assert (again.spec.cpus, again.spec.memory_mib) == (vm.spec.cpus, vm.spec.memory_mib)


def test_forks_have_the_instant_and_go_their_own_ways(world, vm):
    forks = fork(world, vm, "one", "two", "three")
    for number, forked in enumerate((vm, *forks)):
        assert read(world, forked) == ("first", "first")
        write(world, forked, str(number))

    assert [read(world, forked)[0] for forked in (vm, *forks)] == ["0", "1", "2", "3"]
    assert len({world.copies[forked.id].now.boot_id for forked in forks}) == 3
    assert world.store.snapshots.all() == []
    assert world.leftovers() == []


def test_fork_of_a_fork_of_a_fork(world, vm):
    for generation in ("child", "grandchild", "great-grandchild"):
        [vm] = fork(world, vm, generation)
        assert read(world, vm)[0] == ("first" if generation == "child" else f"before {generation}")
        write(world, vm, {"child": "before grandchild", "grandchild": "before great-grandchild"}.get(generation, ""))


def test_many_forks_start_a_few_at_once(world, vm, monkeypatch):
    monkeypatch.setattr(forks, "AT_ONCE", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    guest_of, under_way = world.guests.sessions, []

    def guest(of):
        under_way.append(sum(one.state is not VmState.RUNNING for one in world.store.vms.all()))
        return guest_of(of)

    world.guests.sessions = guest
    assert len(fork(world, vm, *(f"fork-{number}" for number in range(6)))) == 6
    assert max(under_way) <= 2


def test_fork_is_a_vm_like_any_other_from_then_on(world, vm):
    [forked] = fork(world, vm, "fork")
    world.do(StopVm(forked.id, "fork"))
    world.do(GrowVm(forked.id, "fork", 20480))

    assert world.do(StartVm(forked.id, "fork")).state is VmState.RUNNING
    assert world.vmm.launched[-1].saved is None


def test_restored_vm_names_its_snapshot_as_the_parent_of_the_next(world, vm):
    first = snapshot(world, vm, "first")
    again = restore(world, first, "again")
    assert snapshot(world, again, "second").parent_id == first.id


def test_one_fork_that_fails_takes_the_others_with_it(world, vm):
    world.vmm.faults["two"] = Fault.DIES
    with pytest.raises(BangerError, match="died"):
        fork(world, vm, "one", "two", "three")
    assert world.store.vms.all() == [world.vm("web")]
    assert world.leftovers() == []


def test_fork_whose_guest_keeps_an_id_of_its_parent_fails_by_its_name_and_is_gone(world, vm):
    guest = CopiedGuest(ignores="machine-id")
    world.guests.sessions = lambda _: guest
    with pytest.raises(BangerError, match="has not renewed its machine-id") as caught:
        fork(world, vm, "fork")
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert world.store.vms.all() == [world.vm("web")]


def test_copy_that_does_not_answer_is_told_as_one_and_is_gone(world, vm):
    world.guests.refusal = BangerError(ErrorKind.TIMEOUT, "the guest did not answer within 30 s")
    with pytest.raises(BangerError) as caught:
        fork(world, vm, "fork")
    assert (caught.value.kind, caught.value.message) == (ErrorKind.TIMEOUT, 'VM "fork" did not go on')
    assert (caught.value.cause, caught.value.hint) == ("the guest did not answer within 30 s", "banger vm why fork")
    assert world.store.vms.all() == [world.vm("web")]


def test_fork_that_nobody_waits_for_leaves_nothing(world, vm):
    world.vmm.faults["two"] = Fault.HANGS
    waiter = world.supervisor.submit(forking(vm, "one", "two"))
    assert world.vmm.hanging.wait(10.0)
    waiter.operation.cancel("enough")
    assert waiter.operation.wait(10.0)

    assert world.store.vms.all() == [world.vm("web")]
    assert world.leftovers() == []


def test_fork_of_a_taken_name_makes_none(world, vm):
    with pytest.raises(BangerError) as caught:
        fork(world, vm, "new", "web")
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    assert world.store.vms.all() == [world.vm("web")]


def test_snapshot_of_another_version_of_the_vmm_is_refused_with_both_names(world, vm, monkeypatch):
    taken = snapshot(world, vm)
    monkeypatch.setattr(type(world.vmm), "version", lambda _: "9.9.9")
    with pytest.raises(BangerError) as caught:
        restore(world, taken, "again")
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "1.2.3" in caught.value.cause
    assert "9.9.9" in caught.value.cause
    assert world.store.vms.by_name("again") is None


# -- deleting --------------------------------------------------------------------------------------------


def test_deleted_snapshot_is_gone_and_what_was_made_from_it_goes_on(world, vm):
    taken = snapshot(world, vm)
    again = restore(world, taken, "again")

    delete_snapshot(world, taken)

    assert not world.layout.snapshot_dir(taken.id).exists()
    assert is_running(world, again)
    world.do(StopVm(again.id, "again"))
    world.do(StartVm(again.id, "again"))
    with pytest.raises(BangerError) as caught:
        restore(world, taken, "third")
    assert caught.value.kind is ErrorKind.NOT_FOUND


def test_snapshot_outlives_its_vm(world, vm):
    taken = snapshot(world, vm)
    world.do(DeleteVm(vm.id, "web", force=True))
    assert read(world, restore(world, taken, "web")) == ("first", "first")


@pytest.mark.parametrize("noun", ["image", "kernel"])
def test_image_and_kernel_of_a_snapshot_stay_and_the_refusal_names_it(world, vm, noun):
    taken = snapshot(world, vm)
    world.do(DeleteVm(vm.id, "web", force=True))
    table = world.store.images if noun == "image" else world.store.kernels
    [used] = table.all()
    command = DeleteImage if noun == "image" else DeleteKernel

    with pytest.raises(BangerError) as caught:
        world.do(command(used.name, used.id))

    assert (caught.value.cause, caught.value.hint) == ("by snapshot snap", "banger snapshot delete snap")
    delete_snapshot(world, taken)
    world.do(command(used.name, used.id))


def test_prune_keeps_what_a_snapshot_needs(world, vm):
    snapshot(world, vm)
    world.do(DeleteVm(vm.id, "web", force=True))
    assert world.do(Prune(unused=True)).removed == []
    assert read(world, restore(world, world.store.snapshots.by_name("snap"), "again")) == ("first", "first")


# -- checkpoints, and what goes by a rule ----------------------------------------------------------------


def test_oldest_checkpoints_of_a_vm_go_and_what_somebody_named_stays(world, vm):
    keep_checkpoints(world, 2)
    other = create(world, "other", start=True)
    snapshot(world, vm, "mine")
    checkpoint(world, other)
    for text in ("one", "two", "three"):
        write(world, vm, text)
        checkpoint(world, vm)
    write(world, vm, "four")

    there = {one.name for one in world.store.snapshots.all()}
    assert there == {"mine", "other-before-1", "web-before-2", "web-before-3"}
    assert world.leftovers() == []
    assert read(world, rewind(world, vm)) == ("three", "three")


def test_checkpoint_in_use_stays_for_now_and_the_new_one_counts(world, vm):
    keep_checkpoints(world, 1)
    first = checkpoint(world, vm)
    world.store.leases.take("somebody", [directory_key(first.id)])
    checkpoint(world, vm)
    world.store.leases.drop("somebody")
    assert [one.name for one in world.store.snapshots.all()] == ["web-before-1", "web-before-2"]
    checkpoint(world, vm)
    assert [one.name for one in world.store.snapshots.all()] == ["web-before-3"]


def test_prune_of_snapshots_tells_what_it_frees_and_a_dry_run_only_tells(world, vm):
    snapshot(world, vm, "old")
    snapshot(world, vm, "new")
    prune = Prune(("snapshot",), dry_run=True, snapshots=PruneRule(keep=1))
    told = world.do(prune)
    assert (told.removed, len(world.store.snapshots.all())) == (["snapshot old"], 2)

    done = world.do(replace(prune, dry_run=False))

    assert (done.removed, done.kept, done.freed_bytes) == (told.removed, [], told.freed_bytes)
    assert told.freed_bytes > 0
    assert [one.name for one in world.store.snapshots.all()] == ["new"]
    assert world.leftovers() == []


def test_prune_without_a_rule_takes_checkpoints_whose_vm_is_gone(world, vm):
    checkpoint(world, vm)
    snapshot(world, vm, "mine")
    assert world.do(Prune(("snapshot",))).removed == []
    world.do(DeleteVm(vm.id, "web", force=True))
    assert world.do(Prune(("image", "kernel"), unused=True)).removed == []
    assert world.do(Prune(("snapshot",))).removed == ["snapshot web-before-1"]
