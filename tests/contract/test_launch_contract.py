"""What a VMM driver relies on, whoever starts its process: a session, a session in a cgroup, systemd.

The last two need what few test machines have; the test host has both (tests/e2e/test_e2e_testhost.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.launch import Confinement, ForJailer, Job, Launcher, Limits, Outcome, Put
from banger.launch.cgroups import ROOT, Cgroups, NoDelegationError, delegated_part
from banger.launch.session import SessionLauncher
from banger.launch.systemd import SystemdLauncher
from banger.vmm import identity as processes
from tests.support.waiting import eventually

INSTALLATION = f"{os.getpid():012x}"
VM = "aaaaaaaaaaaa"
LIMITS = Limits(cpu_percent=150, memory_bytes=48 << 20, tasks=32)
MARKER = "launch-contract"
USER = 2_000_100_001


@dataclass
class Rig:
    launcher: Launcher
    directory: Path
    limited: bool

    def job(self, script: str, *arguments: str, limits: Limits = LIMITS) -> Job:
        return Job(VM, ["/bin/sh", "-c", script, MARKER, *arguments], self.directory / "log", limits)

    def run(self, script: str, *arguments: str) -> Outcome:
        """Run to the end."""
        pid = self.launcher.spawn(self.job(script, *arguments))
        status = self.wait(pid) if pid else None
        told = self.launcher.outcome(VM)
        return told if told.status is not None else Outcome(status, told.out_of_memory)

    def wait(self, pid: int) -> int | None:
        try:
            identity = processes.identify(pid, "")
        except ProcessLookupError:
            return None
        assert processes.wait_gone(identity, 30.0)
        return processes.exit_status(identity)

    def log(self) -> str:
        return (self.directory / "log").read_text()


EVERY = ("session", "cgroup", "systemd")
LIMITED = ("cgroup", "systemd")


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rig", names, indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    launcher: Launcher = SessionLauncher()
    if request.param == "cgroup":
        try:
            launcher = SessionLauncher(Cgroups(delegated_part(), INSTALLATION))
        except NoDelegationError as error:
            pytest.skip(str(error))
    elif request.param == "systemd":
        launcher = systemd = SystemdLauncher(INSTALLATION)
        if obstacle := systemd.obstacle():
            pytest.skip(obstacle)
    yield Rig(launcher, tmp_path, request.param != "session")
    for left in launcher.host_objects():
        left.remove()


@of(*EVERY)
def test_process_has_a_session_of_its_own_and_nothing_of_ours_but_its_log(rig: Rig) -> None:
    pid = rig.launcher.spawn(rig.job("echo here; exec sleep 60"))
    try:
        eventually(lambda: rig.log() == "here\n")
        assert os.getsid(pid) == pid
        files = {Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in range(3)}
        assert files == {Path("/dev/null"), rig.directory / "log"}
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert stat.S_IMODE((rig.directory / "log").stat().st_mode) == 0o600
    finally:
        os.kill(pid, signal.SIGKILL)
        rig.wait(pid)


@of(*EVERY)
def test_arguments_arrive_as_they_are(rig: Rig) -> None:
    odd = ["$HOME", "${x}", "$$", "50%", "%n", "a b", "", "'\"\\", "ü"]
    rig.run('printf "<%s>\\n" "$@"', *odd)
    eventually(lambda: rig.log() == "".join(f"<{one}>\n" for one in odd))


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15)])
@of(*EVERY)
def test_outcome_tells_how_the_process_ended(rig: Rig, script: str, status: int) -> None:
    assert rig.run(f"sleep 0.3; {script}") == Outcome(status)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace without one of users")
@of(*EVERY)
def test_process_1_of_a_namespace_is_found_and_its_end_is_told_like_that_of_others(rig: Rig) -> None:
    busybox = shutil.which("busybox") or pytest.skip("needs a static busybox")
    script = 'echo "$$"; until [ -e /go/now ]; do "$0" sleep 0.05; done; exit 7'
    (rig.directory / "go").mkdir()
    put = [Put("read", rig.directory / "go", Path("/go"))]
    seen = Confinement(
        visible=[Path(busybox)],
        has_network=False,
        has_processes=False,
        uid=USER,
        jailer=ForJailer(Path("/s"), 4096, put),
    )
    argv = [busybox, "sh", "-c", script, busybox, MARKER]
    pid = rig.launcher.spawn(Job(VM, argv, rig.directory / "log", LIMITS, confinement=seen))
    identity = processes.identify(pid, MARKER)
    try:
        assert processes.find(MARKER, range(USER, USER + 1)) == identity
        eventually(lambda: rig.log() == "1\n", what="it runs as process 1")
        (rig.directory / "go" / "now").touch()
        status = rig.wait(pid)
    finally:
        processes.kill(identity)
    told = rig.launcher.outcome(VM).status
    assert (status if told is None else told) == 7


@of(*EVERY)
def test_log_is_appended_to(rig: Rig) -> None:
    for word in ("one", "two"):
        rig.run(f"sleep 0.1; echo {word}")
        rig.launcher.release(rig.launcher.key(VM) or "/nonexistent")
    assert rig.log() == "one\ntwo\n"


@of(*LIMITED)
def test_limits_are_those_of_the_process(rig: Rig) -> None:
    pid = rig.launcher.spawn(rig.job("echo here; exec sleep 60"))
    try:
        eventually(lambda: rig.log() == "here\n")  # it has entered its cgroup
        own = next(
            line[3:]
            for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        )
        found = [(ROOT / own.lstrip("/") / name).read_text().strip() for name in ("cpu.max", "memory.max", "pids.max")]
        assert found == ["150000 100000", str(48 << 20), "32"]
    finally:
        os.kill(pid, signal.SIGKILL)
        rig.wait(pid)


@of(*LIMITED)
def test_process_that_uses_up_its_memory_is_said_to_have_done_so(rig: Rig) -> None:
    outcome = rig.run("exec tail /dev/zero")
    assert outcome == Outcome(-signal.SIGKILL, out_of_memory=True)


@of(*EVERY)
def test_what_was_made_is_listed_until_it_is_released(rig: Rig) -> None:
    key = rig.launcher.key(VM)
    assert bool(key) is rig.limited
    rig.run("sleep 0.1")
    listed = [(one.kind, one.key, one.vm_id) for one in rig.launcher.host_objects()]
    assert listed == ([(rig.launcher.kind, key, VM)] if key else [])
    for _ in range(2):
        rig.launcher.release(key or "/nonexistent")
    assert not rig.launcher.host_objects()


@of("systemd")
def test_second_process_for_a_vm_whose_unit_runs_is_refused(rig: Rig) -> None:
    pid = rig.launcher.spawn(rig.job("echo here; exec sleep 60"))
    with pytest.raises(BangerError) as caught:
        rig.launcher.spawn(rig.job("exit 0"))
    assert caught.value.kind is ErrorKind.CONFLICT
    assert str(pid) in caught.value.message
    rig.launcher.release(rig.launcher.key(VM))
    assert not Path(f"/proc/{pid}").exists()


@of("session", "systemd")  # in a cgroup it is a shell that says so, in the log
def test_program_that_is_not_there_is_unavailable(rig: Rig) -> None:
    job = Job(VM, ["/nonexistent/vmm"], rig.directory / "log")
    with pytest.raises(BangerError) as caught:
        rig.launcher.spawn(job)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
