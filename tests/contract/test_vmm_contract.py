"""What the owners rely on, whatever runs the machine: one suite for the fakes, QEMU and Firecracker."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.exits import ExitRecord
from banger.core.models import ExitReason, ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import Condition, Drive, Engine, Health, TapNic, UserNic
from banger.core.wire.vm_spec import VmSpec
from banger.vmm import identity as processes
from banger.vmm.log_files import bound
from tests.support.forked import forked
from tests.support.machines import FAKES, KINDS, Rig, machine_of, obstacle_to, vm_id_of, wait_up
from tests.support.tiny_guest import write_flooding_guest
from tests.support.waiting import eventually


@pytest.fixture(params=[kind if kind in FAKES else pytest.param(kind, marks=pytest.mark.boot) for kind in KINDS])
def rig(request: pytest.FixtureRequest, session_root: Path) -> Iterator[Rig]:
    if obstacle := obstacle_to(request.param):
        pytest.skip(obstacle)
    rig = Rig.build(
        request.param, Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp")), session_root / "proofs"
    )
    yield rig
    rig.close()


def launch(rig: Rig, name: str = "web", *, hears_button: bool = False) -> ProcessIdentity:
    return rig.vmm.launch(rig.config(name, hears_button=hears_button), lambda identity: None)


def ended(rig: Rig, identity: ProcessIdentity, name: str = "web", console: str = "") -> ExitRecord:
    machine = machine_of(rig.config(name), identity)
    return rig.vmm.exit_record(machine, rig.processes.outcome(vm_id_of(name), identity), console)


def test_launch_returns_a_live_machine_whose_identity_was_told_first(rig: Rig) -> None:
    told: list[ProcessIdentity] = []
    identity = rig.vmm.launch(rig.config(), told.append)
    assert told == [identity]
    assert rig.processes.is_alive(identity)
    assert rig.processes.of_this_boot(identity)


def test_console_of_a_launched_machine_reaches_its_file(rig: Rig) -> None:
    config = rig.config()
    rig.vmm.launch(config, lambda identity: None)
    wait_up(config)


def test_kill_of_a_live_machine_returns_when_it_is_gone(rig: Rig) -> None:
    identity = launch(rig)
    rig.processes.kill(identity)
    assert not rig.processes.is_alive(identity)
    eventually(lambda: not Path(f"/proc/{identity.pid}").exists(), what="somebody to have reaped it")
    record = ended(rig, identity)
    assert (record.reason, record.status) == (ExitReason.KILLED, -signal.SIGKILL)


def test_exit_status_of_a_machine_survives_other_processes_being_started(rig: Rig) -> None:
    """``subprocess`` reaps forgotten children whenever it starts a new one; a machine must not be among them."""
    identity = launch(rig)
    gc.collect()
    processes.kill(identity)
    eventually(lambda: not rig.processes.is_alive(identity))
    subprocess.run(["true"], check=True)
    assert rig.processes.wait_exit(identity, 5.0)
    assert ended(rig, identity).status == -signal.SIGKILL


def test_kill_of_a_dead_machine_is_success(rig: Rig) -> None:
    identity = launch(rig)
    rig.processes.kill(identity)
    rig.processes.kill(identity)
    assert rig.processes.wait_exit(identity, 0.0)


def test_kill_of_a_process_that_never_was_is_success(rig: Rig) -> None:
    rig.processes.kill(processes.NO_PROCESS)
    assert not rig.processes.is_alive(processes.NO_PROCESS)


def test_power_down_of_a_listening_guest_ends_the_machine_well(rig: Rig) -> None:
    config = rig.config(hears_button=True)
    identity = rig.vmm.launch(config, lambda identity: None)
    wait_up(config)
    rig.vmm.power_down(machine_of(config, identity))
    assert rig.processes.wait_exit(identity, 10.0)
    record = ended(rig, identity, console="[    9.1] reboot: Power down")
    assert (record.reason, record.status) == (ExitReason.GUEST_POWEROFF, 0)


def test_paused_machine_stands_still_until_it_is_resumed(rig: Rig) -> None:
    config = rig.config(hears_button=True)
    identity = rig.vmm.launch(config, lambda identity: None)
    wait_up(config)
    rig.vmm.pause(machine_of(config, identity))
    rig.vmm.power_down(machine_of(config, identity))
    assert not rig.processes.wait_exit(identity, 0.3)
    assert rig.vmm.condition(machine_of(config, identity)).health is Health.PAUSED
    rig.vmm.resume(machine_of(config, identity))
    assert rig.processes.wait_exit(identity, 10.0)


def test_pause_and_resume_may_be_repeated(rig: Rig) -> None:
    config = rig.config()
    identity = rig.vmm.launch(config, lambda identity: None)
    for act in (rig.vmm.resume, rig.vmm.pause, rig.vmm.pause, rig.vmm.resume, rig.vmm.resume):
        act(machine_of(config, identity))
        health = Health.PAUSED if act == rig.vmm.pause else Health.RUNS
        assert rig.vmm.condition(machine_of(config, identity)).health is health
        assert rig.processes.is_alive(identity)


def test_pause_and_resume_of_a_dead_machine_are_success(rig: Rig) -> None:
    config = rig.config()
    identity = rig.vmm.launch(config, lambda identity: None)
    rig.processes.kill(identity)
    rig.vmm.pause(machine_of(config, identity))
    rig.vmm.resume(machine_of(config, identity))


def test_kill_of_a_paused_machine_ends_it(rig: Rig) -> None:
    config = rig.config()
    identity = rig.vmm.launch(config, lambda identity: None)
    rig.vmm.pause(machine_of(config, identity))
    rig.processes.kill(identity)
    assert not rig.processes.is_alive(identity)


def test_what_a_launch_made_is_listed_until_it_is_released(rig: Rig) -> None:
    identity = launch(rig)
    held = rig.launcher.holds(vm_id_of("web"))
    assert [(one.kind, one.key, one.vm_id) for one in rig.launcher.host_objects()] == [
        (*one, vm_id_of("web")) for one in held
    ]
    rig.processes.kill(identity)
    for _ in range(2):
        for kind, key in held:
            rig.launcher.release(kind, key)
    assert not rig.launcher.host_objects()


def test_power_down_of_a_dead_machine_is_success(rig: Rig) -> None:
    identity = launch(rig)
    rig.processes.kill(identity)
    rig.vmm.power_down(machine_of(rig.config(), identity))


def test_wait_exit_of_a_live_machine_gives_up_in_time(rig: Rig) -> None:
    identity = launch(rig)
    began = time.monotonic()
    assert not rig.processes.wait_exit(identity, 0.05)
    assert time.monotonic() - began < 8.0


@pytest.mark.parametrize("change", [{"start_ticks": 1}, {"boot_id": "another"}, {"marker": "banger-vm-other"}])
def test_is_alive_of_another_process_with_the_same_pid_is_false(rig: Rig, change: dict[str, object]) -> None:
    identity = launch(rig)
    other = replace(identity, **change)  # type: ignore[arg-type]
    assert not rig.processes.is_alive(other)
    rig.processes.kill(other)
    assert rig.processes.is_alive(identity)


def test_find_of_a_lost_machine_gives_its_identity(rig: Rig) -> None:
    identity = launch(rig)
    assert rig.processes.find(identity.marker) == identity
    rig.processes.kill(identity)
    assert rig.processes.find(identity.marker) is None


def test_launch_whose_identity_cannot_be_written_down_leaves_no_process(rig: Rig) -> None:
    def full_disk(identity: ProcessIdentity) -> None:
        raise OSError("no space left on device")

    config = rig.config()
    with pytest.raises(OSError, match="no space left"):
        rig.vmm.launch(config, full_disk)
    assert rig.processes.find(vmm_marker(config.vm_id)) is None


def test_launch_of_what_is_no_kernel_says_so_and_leaves_no_process(rig: Rig) -> None:
    if rig.kind in FAKES:
        pytest.skip("a fake boots everything")
    config = rig.config()
    config.kernel.write_bytes(b"no kernel at all" * 1000)
    with pytest.raises(BangerError, match="cannot load its kernel") as caught:
        rig.vmm.launch(config, lambda identity: None)
    assert caught.value.kind is ErrorKind.INVALID
    assert rig.processes.find(vmm_marker(config.vm_id)) is None


def test_guest_that_floods_its_console_neither_fills_the_disk_nor_stands_still(rig: Rig) -> None:
    if rig.kind in FAKES:
        pytest.skip("a fake floods nothing")
    config = rig.config()
    write_flooding_guest(config.kernel)
    identity = rig.vmm.launch(config, lambda identity: None)
    wait_up(config)
    for _ in range(3):
        eventually(lambda: bound(config.console_log, 2000), what="more than is kept was said")
        assert config.console_log.with_name("console.log.1").stat().st_size == 2000
    assert rig.processes.is_alive(identity)
    assert rig.vmm.condition(machine_of(config, identity)) == Condition()


def test_machine_in_which_nothing_goes_wrong_has_counted_no_error_whether_it_runs_or_not(rig: Rig) -> None:
    config = rig.config()
    assert rig.vmm.error_counters(config.vmm_log) == {}
    identity = rig.vmm.launch(config, lambda identity: None)
    wait_up(config)
    assert rig.vmm.error_counters(config.vmm_log) == {}
    rig.processes.kill(identity)
    assert rig.vmm.error_counters(config.vmm_log) == {}


def test_kill_of_one_machine_leaves_the_others_alone(rig: Rig) -> None:
    one, two = launch(rig, "one"), launch(rig, "two")
    rig.processes.kill(one)
    assert rig.processes.is_alive(two)


def test_launch_again_after_a_kill_works_in_the_same_directory(rig: Rig) -> None:
    first = launch(rig)
    rig.processes.kill(first)
    second = launch(rig)
    assert rig.processes.is_alive(second)
    assert not rig.processes.is_alive(first)


def test_machine_shares_neither_session_nor_pipe_with_its_launcher(rig: Rig) -> None:
    identity = launch(rig)
    assert os.getsid(identity.pid) == identity.pid
    ours = {Path(f"/proc/self/fd/{fd}").readlink().name for fd in range(3)}
    theirs = set()
    for entry in Path(f"/proc/{identity.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it may close one while we look
            theirs.add(entry.readlink().name)
    assert not {link for link in theirs & ours if link.startswith("pipe:")}


def test_machine_survives_a_killed_launcher_and_is_adopted_by_its_identity_alone(rig: Rig) -> None:
    told = rig.home / "identity"

    def launch_and_die() -> None:
        told.write_text(json.dumps(asdict(launch(rig))))
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(launch_and_die) == -signal.SIGKILL
    identity = ProcessIdentity(**json.loads(told.read_text()))
    assert rig.processes.is_alive(identity)
    rig.processes.kill(identity)
    assert not rig.processes.is_alive(identity)


def test_machine_that_runs_has_not_broken_down_and_uses_processor_time_until_it_is_gone(rig: Rig) -> None:
    config = rig.config()
    identity = rig.vmm.launch(config, lambda identity: None)
    wait_up(config)
    assert rig.vmm.condition(machine_of(config, identity)) == Condition()
    assert rig.processes.cpu_seconds(identity) >= 0.0
    rig.processes.kill(identity)
    assert rig.vmm.condition(machine_of(config, identity)) == Condition()
    assert rig.processes.cpu_seconds(identity) == 0.0


def test_machine_type_that_the_driver_does_not_have_is_a_usage_error_and_another_one_is_known(rig: Rig) -> None:
    with pytest.raises(BangerError) as caught:
        rig.vmm.options(VmSpec("debian", machine="pdp11"))
    assert caught.value.kind is ErrorKind.USAGE
    assert rig.vmm.options(VmSpec("debian")) == rig.vmm.options(VmSpec("debian"))
    assert rig.vmm.alternative(VmSpec("debian")).startswith("--")


def test_driver_has_disks_and_a_network_card(rig: Rig) -> None:
    assert Drive in rig.vmm.devices
    assert {UserNic, TapNic} & set(rig.vmm.devices)


def test_engine_that_failed_is_followed_by_another_or_by_none_but_never_by_itself(rig: Rig) -> None:
    engine: Engine | None = rig.vmm.engines.choose("", "")
    seen: set[str] = set()
    while engine is not None:
        assert engine.accelerator not in seen
        seen.add(engine.accelerator)
        engine = rig.vmm.engines.instead_of(engine, "it failed")
    assert rig.vmm.engines.instead_of(rig.vmm.engines.choose("tcg", ""), "it failed") is None
