"""What only QEMU can show: ports, disks, odd paths, and words for everything that goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ExitReason, ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import AGENT_SOCKET, PORTS_SOCKET, Drive, VmmConfig
from banger.vmm import identity as processes
from banger.vmm.qemu import launch, proof_guest, qmp
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.binary import find_binary
from banger.vmm.qemu.proof import prove
from tests.support.machines import Rig, has_qemu, machine_of, make_launching, obstacle_to, wait_up
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.skipif(not has_qemu(), reason="qemu-system-x86_64 is not installed")]


@pytest.fixture
def make_rig(session_root: Path) -> Iterator[Callable[[str], Rig]]:
    rigs: list[Rig] = []

    def make(kind: str = "qemu-microvm", prefix: str = "vmm-") -> Rig:
        home = Path(tempfile.mkdtemp(prefix=prefix, dir=session_root / "tmp"))
        rigs.append(Rig.build(kind, home, session_root / "proofs"))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture(params=["qemu-microvm", "qemu-jailed"])
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    if obstacle := obstacle_to(request.param):
        pytest.skip(obstacle)
    return make_rig(request.param)


def start(rig: Rig, config: VmmConfig) -> ProcessIdentity:
    return rig.vmm.launch(config, lambda identity: None)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def disk(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(1 << 20)
    return path


def refusal(rig: Rig, config: VmmConfig) -> BangerError:
    """The error of a launch that must fail, after which nothing may be left."""
    with pytest.raises(BangerError) as caught:
        start(rig, config)
    assert rig.processes.find(vmm_marker(config.vm_id)) is None
    return caught.value


@pytest.mark.parametrize("kind", ["qemu-microvm", "qemu-q35", "qemu-jailed"])
def test_launch_of_two_machines_on_one_read_only_base_works(make_rig: Callable[..., Rig], kind: str) -> None:
    if obstacle := obstacle_to(kind):
        pytest.skip(obstacle)
    rig = make_rig(kind)
    base = Drive(disk(rig.home / "base.img"), "root", read_only=True)
    for name in ("one", "two"):
        layer = Drive(disk(rig.home / f"{name}.img"), "work", read_only=False)
        assert rig.processes.is_alive(start(rig, rig.config(name, devices=[base, layer])))


def test_launch_on_a_disk_in_use_is_a_conflict(rig: Rig) -> None:
    layer = Drive(disk(rig.home / "layer.img"), "work", read_only=False)
    start(rig, rig.config("one", devices=[layer]))
    error = refusal(rig, rig.config("two", devices=[layer]))
    assert error.kind is ErrorKind.CONFLICT
    assert "another process uses its disk" in error.message


def test_launch_below_a_directory_with_commas_works(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(prefix="a,b=c,,")
    config = rig.config(devices=[Drive(disk(rig.home / "base,x.img"), "root", read_only=True)])
    start(rig, config)
    wait_up(config)


def test_console_of_a_restarted_machine_goes_on_in_the_same_file(rig: Rig) -> None:
    config = rig.config()
    config.console_log.write_text("before\n")
    start(rig, config)
    wait_up(config)
    assert config.console_log.read_text().startswith("before\n")


def test_sockets_of_a_machine_are_private(rig: Rig) -> None:
    config = rig.config()
    start(rig, config)
    assert stat.S_IMODE(launch.qmp_path(config.run_dir).stat().st_mode) == 0o600
    for name in (AGENT_SOCKET, PORTS_SOCKET):
        assert stat.S_IMODE((config.run_dir / name).stat().st_mode) & 0o077 == 0


def test_machine_whose_guest_has_no_agent_says_so(rig: Rig) -> None:
    config = rig.config()
    start(rig, config)
    assert not rig.vmm.hears_agent(config.run_dir)
    assert rig.vmm.hears_agent(config.run_dir.with_name("none")), "of one that does not answer nothing bad is known"


def test_monitor_of_a_machine_answers_one_session_after_another(rig: Rig) -> None:
    config = rig.config()
    start(rig, config)
    for _ in range(3):
        with qmp.session(launch.qmp_path(config.run_dir), Deadline.after(5.0)) as session:
            assert session.execute("query-status")["status"] == "running"


def test_monitor_of_a_machine_refuses_an_unknown_command_in_words(rig: Rig) -> None:
    config = rig.config()
    start(rig, config)
    with (
        qmp.session(launch.qmp_path(config.run_dir), Deadline.after(5.0)) as session,
        pytest.raises(qmp.QmpError, match="make-coffee"),
    ):
        session.execute("make-coffee")


def test_launch_without_qemu_is_unavailable_with_the_package_to_install(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(rig.home))
    error = refusal(rig, rig.config())
    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.hint == "apt-get install qemu-system-x86"


def test_launch_with_more_memory_than_can_be_had_is_exhausted(rig: Rig) -> None:
    error = refusal(rig, rig.config(memory_mib=1 << 27))
    assert error.kind is ErrorKind.EXHAUSTED


def test_launch_of_a_file_that_is_no_kernel_is_invalid_in_qemus_words(rig: Rig) -> None:
    config = rig.config()
    config.kernel.write_bytes(b"no kernel")
    error = refusal(rig, config)
    assert error.kind is ErrorKind.INVALID
    assert "kernel" in error.cause
    assert "--kernel" in error.hint


def test_launch_in_a_directory_too_deep_for_sockets_is_invalid(rig: Rig) -> None:
    error = refusal(rig, rig.config("x" * 100))
    assert error.kind is ErrorKind.INVALID
    assert "BANGER_HOME" in error.hint


def test_launch_of_a_vmm_that_never_answers_times_out_and_leaves_nothing(rig: Rig) -> None:
    config = rig.config(uid=0)
    marker = vmm_marker(config.vm_id)
    never = config.run_dir / "never"
    os.mkfifo(never)
    with pytest.raises(BangerError) as caught:
        launch.launch(
            config,
            launch.Program(find_binary(), lambda _: ["/bin/sh", "-c", 'read -r x <> "$1"', marker, str(never)]),
            lambda _: None,
            make_launching("session"),
            timeout_s=0.2,
        )
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert processes.find(marker) is None


def test_power_down_of_a_machine_whose_monitor_is_gone_is_unavailable(rig: Rig) -> None:
    config = rig.config()
    identity = start(rig, config)
    launch.qmp_path(config.run_dir).unlink()
    with pytest.raises(BangerError) as caught:
        rig.vmm.power_down(machine_of(config, identity))
    assert caught.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (signal.SIGTERM, ExitReason.KILLED, f"with SIGTERM by process {os.getpid()}"),
        (signal.SIGSEGV, ExitReason.VMM_CRASH, "crashed with SIGSEGV"),
        (signal.SIGKILL, ExitReason.KILLED, "killed with SIGKILL"),
    ],
    ids=["SIGTERM", "SIGSEGV", "SIGKILL"],
)
def test_exit_record_of_a_signalled_machine_tells_wish_from_crash(
    rig: Rig, number: signal.Signals, reason: ExitReason, words: str
) -> None:
    config = rig.config()
    identity = start(rig, config)
    processes.kill(identity, number)
    assert rig.processes.wait_exit(identity, 10.0)
    record = rig.vmm.exit_record(machine_of(config, identity), rig.processes.outcome(config.vm_id, identity), "")
    assert record.reason is reason
    assert words in record.words


def test_proof_guest_runs_under_emulation_and_agrees_with_itself_on_the_clock() -> None:
    proofs = [prove(find_binary(), "tcg", timeout_s=20.0) for _ in range(2)]
    assert all(proof.works for proof in proofs), proofs
    first, second = proofs
    assert first.tsc_khz == pytest.approx(second.tsc_khz, rel=first.tsc_error + second.tsc_error + 1e-4)


def stand_in(directory: Path, script: str) -> Binary:
    """A QEMU whose guest does what ``script`` says."""
    path = directory / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return replace(find_binary(), path=str(path))


@pytest.mark.parametrize(("accelerator", "works"), [("kvm", True), ("tcg", False)])
def test_proof_guest_whose_clocks_contradict_each_other_is_no_proof_for_emulation_alone(
    tmp_path: Path, accelerator: str, works: bool
) -> None:
    """KVM guests have clocks that need no telling; a busy host must not cost them KVM."""
    said = b"swwwww" + struct.pack("<6I", 9, 10, 1, 2, 5, 6)
    octal = "".join(f"\\{byte:03o}" for byte in said)
    binary = stand_in(tmp_path, f"printf '{octal}'; exit {proof_guest.EXIT_CODE}")
    assert prove(binary, accelerator, timeout_s=5.0).works is works


def test_proof_guest_that_kvm_gives_up_ends_the_proof_at_once_with_its_words(tmp_path: Path) -> None:
    binary = stand_in(tmp_path, "printf s; echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60")
    began = time.monotonic()
    proof = prove(binary, "kvm", timeout_s=30.0)
    assert (proof.works, proof.reason) == (False, "KVM internal error. Suberror: 1")
    assert time.monotonic() - began < 10.0


@pytest.mark.parametrize(("meanwhile", "conclusive"), [("while :; do :; done", True), ("exec sleep 60", False)])
def test_proof_guest_that_is_silent_at_its_work_is_no_proof_and_a_verdict_only_if_it_had_the_processor(
    tmp_path: Path, meanwhile: str, conclusive: bool
) -> None:
    silent = stand_in(tmp_path, f"printf sw; {meanwhile}")

    def is_as_expected() -> bool:
        proof = prove(silent, "kvm", timeout_s=30.0, patience_s=2.0)
        assert not proof.works
        assert "did 1 of 5 pieces of work" in proof.reason
        return proof.conclusive is conclusive

    eventually(is_as_expected, 60.0, "a verdict")  # on a busy host the processor may be somebody else's at first


def test_proof_guest_tells_how_long_its_fastest_piece_of_work_took(tmp_path: Path) -> None:
    pace = "printf s; for pause in 0.3 0.3 0.1 0.3 0.3; do sleep $pause; printf w; done"
    proof = prove(stand_in(tmp_path, f"{pace}; exit {proof_guest.EXIT_CODE}"), "kvm", timeout_s=30.0)
    assert proof.works
    assert 0.1 <= proof.chunk_s < 0.3


def test_proof_guest_that_does_not_finish_is_no_proof() -> None:
    proof = prove(find_binary(), "tcg", timeout_s=0.01)
    assert not proof.works
    assert "did not finish" in proof.reason


def test_proof_guest_on_a_qemu_that_fails_gives_its_words() -> None:
    proof = prove(replace(find_binary(), path="/bin/false"), "tcg", timeout_s=5.0)
    assert not proof.works
    assert "status 1" in proof.reason


@pytest.mark.parametrize(("status", "words"), [("internal-error", "KVM internal error. Suberror: 1"), ("running", "")])
def test_machine_that_kvm_dropped_has_broken_down_if_the_monitor_agrees_with_the_log(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, status: str, words: str
) -> None:
    config = rig.config()
    identity = start(rig, config)
    before = config.vmm_log.stat().st_size
    with config.vmm_log.open("a") as log:
        log.write("KVM internal error. Suberror: 1\nRAX=0000000000000000\n")
    monkeypatch.setattr(qmp.QmpSession, "execute", lambda *_: {"status": status})
    assert rig.vmm.condition(machine_of(config, identity, before)).words == words
