"""What only QEMU's way of saving machines can show: its helper, and every moment in which something may end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import saver_marker
from banger.core.ports import Drive, Health, Machine, SavedMachine, TapNic, UserNic
from banger.vmm import identity as processes
from banger.vmm.qemu import driver, forgotten_pages, saving
from banger.vmm.qemu.binary import find_binary
from tests.support.machines import Rig, has_qemu, machine_of, obstacle_to
from tests.support.netns import why_no_namespace
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.skipif(not has_qemu(), reason="qemu-system-x86_64 is not installed")]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
#: Saves a machine as a daemon does that is killed in the middle.
_DAEMON = """
import json, os, pathlib, signal, sys
from banger.core.models import ProcessIdentity
from banger.vmm.qemu import saving
from tests.support.machines import Rig, machine_of
kind, home, cache, identity, moment = sys.argv[1:]
rig = Rig.build(kind, pathlib.Path(home), pathlib.Path(cache))
end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
def spawned(identity):
    print(identity.pid, flush=True)
    end()
if moment == "copying":
    saving._wait_standing = end
config = rig.config()
machine = machine_of(config, ProcessIdentity(**json.loads(identity)))
rig.vmm.save(machine, config.run_dir / "saved", end, spawned if moment == "spawned" else lambda _: None)
"""


@pytest.fixture(params=["qemu-microvm", "qemu-jailed"])
def rig(request: pytest.FixtureRequest, session_root: Path) -> Iterator[Rig]:
    if obstacle := obstacle_to(request.param):
        pytest.skip(obstacle)
    rig = Rig.build(
        request.param, Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp")), session_root / "proofs"
    )
    yield rig
    rig.close()


def launched(rig: Rig, name: str = "web", **changes: object) -> Machine:
    config = rig.config(name, counts=True, **changes)
    machine = machine_of(config, rig.vmm.launch(config, lambda _: None))
    if not config.saved:
        eventually(lambda: printed(machine) > 5, what="the guest counts")
    (config.run_dir / "saved").mkdir()
    return machine


def printed(machine: Machine) -> int:
    return machine.console_log.stat().st_size if machine.console_log.exists() else 0


def save(rig: Rig, machine: Machine, standing: Callable[[], object] = lambda: None) -> SavedMachine:
    def called() -> None:
        standing()

    return rig.vmm.save(machine, machine.run_dir / "saved", called, lambda _: None)


def helper_of(machine: Machine) -> ProcessIdentity:
    found = processes.find(saver_marker(machine.vm_id), range(2**32))
    assert found is not None
    return found


def is_as_before(rig: Rig, machine: Machine) -> None:
    """It runs, and nothing else is left."""
    before = printed(machine)
    eventually(lambda: printed(machine) > before + 2, what="the guest goes on")
    assert rig.vmm.condition(machine).health is Health.RUNS
    assert processes.find(saver_marker(machine.vm_id), range(2**32)) is None
    assert not list((machine.run_dir / "saved").iterdir())
    save(rig, machine)


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something while memory is being copied."""
    wait = saving._wait_standing

    def acting(*arguments: object) -> None:
        act()
        wait(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(saving, "_wait_standing", acting)


@pytest.mark.parametrize("moment", ["copying", "standing"])
def test_helper_that_is_killed_costs_the_save_and_nothing_else(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    machine = launched(rig)

    def kill() -> None:
        rig.processes.kill(helper_of(machine))

    with monkeypatch.context() as patched:
        if moment == "copying":
            meanwhile(patched, kill)
        with pytest.raises(BangerError) as caught:
            save(rig, machine, kill if moment == "standing" else lambda: None)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    is_as_before(rig, machine)


def test_save_whose_helper_hangs_is_cancelled_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, token = launched(rig), CancelToken()

    def hang() -> None:
        assert processes.stop(helper_of(machine), 20.0)
        threading.Timer(0.1, token.cancel).start()

    with monkeypatch.context() as patched:
        meanwhile(patched, hang)
        with pytest.raises(BangerError) as caught:
            rig.vmm.save(machine, machine.run_dir / "saved", lambda: None, lambda _: None, token)
    assert caught.value.kind is ErrorKind.CANCELLED
    is_as_before(rig, machine)


def test_machine_whose_memory_may_not_be_looked_at_stands_still_from_the_beginning(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an emulator before 10.0 forgets to send of a machine that runs could not be made good."""
    machine, stood = launched(rig), list[int]()
    with monkeypatch.context() as patched:
        patched.setattr(forgotten_pages, "guest_memory", lambda *_: nullcontext())
        patched.setattr(type(find_binary()), "forgets_pages", True)
        meanwhile(patched, lambda: stood.append(printed(machine)))
        saved = save(rig, machine, lambda: stood.append(printed(machine)))
    assert stood[0] == stood[1]
    fork = launched(rig, "fork", saved=saved)
    for one in (machine, fork):
        rig.vmm.resume(one)
        before = printed(one)
        eventually(lambda of=one, then=before: printed(of) > then + 2, what="it goes on")  # type: ignore[misc]


def test_machine_that_ends_while_it_is_saved_is_told_and_leaves_nothing(rig: Rig) -> None:
    machine = launched(rig)
    with pytest.raises(BangerError) as caught:
        save(rig, machine, lambda: rig.processes.kill(machine.identity))
    assert (caught.value.kind, "it ended" in caught.value.message) == (ErrorKind.CONFLICT, True)
    assert not list((machine.run_dir / "saved").iterdir())
    assert processes.find(saver_marker(machine.vm_id), range(2**32)) is None


@pytest.mark.parametrize("moment", ["spawned", "copying", "standing"])
def test_daemon_that_is_killed_takes_its_helper_with_it_and_a_resume_undoes_the_save(rig: Rig, moment: str) -> None:
    """One that had just been started may not know yet whom to end with: it is written down."""
    machine = launched(rig)
    identity = (
        f'{{"pid": {machine.identity.pid}, "start_ticks": {machine.identity.start_ticks}, '
        f'"boot_id": "{machine.identity.boot_id}", "marker": "{machine.identity.marker}"}}'
    )
    done = subprocess.run(
        [sys.executable, "-c", _DAEMON, rig.kind, str(rig.home), str(rig.cache), identity, moment],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    if moment == "spawned":
        with suppress(ProcessLookupError):
            os.kill(int(done.stdout), signal.SIGKILL)
    eventually(lambda: processes.find(saver_marker(machine.vm_id), range(2**32)) is None, what="no helper is left")
    if moment == "standing":
        assert rig.vmm.condition(machine).health is Health.PAUSED
    rig.vmm.resume(machine)
    for file in (machine.run_dir / "saved").iterdir():
        file.unlink()
    is_as_before(rig, machine)


@needs_root
def test_save_without_room_is_exhausted_and_the_machine_goes_on(rig: Rig) -> None:
    machine = launched(rig)
    into = machine.run_dir / "saved"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(into)], check=True)
    try:
        with pytest.raises(BangerError) as caught:
            save(rig, machine)
        assert caught.value.kind is ErrorKind.EXHAUSTED
        assert not list(into.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", str(into)], check=True)
    is_as_before(rig, machine)


@needs_root
def test_helper_has_no_network_and_is_confined_as_its_machine_is(rig: Rig) -> None:
    machine = launched(rig)

    def status(pid: int) -> dict[str, str]:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def look() -> None:
        helper = helper_of(machine).pid
        of_machine = status(machine.identity.pid)
        assert {name: status(helper)[name] for name in ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs")} == {
            name: of_machine[name] for name in ("Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs")
        }
        if rig.kind == "qemu-jailed":
            links = Path(f"/proc/{helper}/net/dev").read_text(encoding="utf-8").splitlines()[2:]
            assert [line.split(":")[0].strip() for line in links] == ["lo", "own"]
            assert set(os.listdir(f"/proc/{helper}/root/dev")) == {"null", "urandom"}  # noqa: PTH208

    save(rig, machine, look)


@pytest.fixture
def apart() -> Iterator[tuple[str, ...]]:
    """The command for a network namespace in which there are two taps."""
    if why := why_no_namespace():
        pytest.skip(why)
    taps = "".join(f"ip tuntap add dev tap{number} mode tap; ip link set tap{number} up; " for number in range(2))
    holder = subprocess.Popen(["unshare", "--net", "sh", "-ec", f"{taps} echo; exec sleep 600"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    yield ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--")
    holder.kill()
    holder.wait()
    holder.stdout.close()


def test_machine_on_a_tap_is_saved_by_one_on_a_tap_that_nobody_sees(rig: Rig, apart: tuple[str, ...]) -> None:
    nic = TapNic("tap0", "52:54:00:00:00:01", entering=(shutil.which("nsenter") or "", *apart[1:]))
    machine = launched(rig, devices=[nic])

    def links() -> str:
        return subprocess.run([*apart, "ls", "/sys/class/net"], capture_output=True, text=True, check=True).stdout

    before = links()
    seen: list[str] = []
    saved = save(rig, machine, lambda: seen.append(links()))
    assert seen == [before]
    fork = launched(rig, "fork", devices=[replace(nic, tap="tap1")], saved=saved)
    rig.vmm.resume(fork)
    eventually(lambda: printed(fork) > 2, what="the fork goes on")


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"cpus": 2}, "smp 2"), ({"devices": ()}, "netdev"), ({"options": {"machine": "q35"}}, "machine q35")],
)
def test_saved_machine_that_was_another_one_is_refused_with_the_difference(
    rig: Rig, changes: dict[str, object], word: str
) -> None:
    saved = save(rig, launched(rig))
    with pytest.raises(BangerError) as caught:
        launched(rig, "fork", saved=saved, **changes)
    assert caught.value.kind is ErrorKind.INVALID
    assert word in caught.value.cause


def test_machine_on_a_qemu_that_was_replaced_is_not_saved(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = launched(rig)
    other = replace(find_binary(), version="QEMU emulator version 99.0")
    with monkeypatch.context() as patched:
        patched.setattr(driver, "find_binary", lambda: other)
        with pytest.raises(BangerError) as caught:
            save(rig, machine)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert all(version in caught.value.cause for version in (find_binary().version, other.version))
    assert "restart" in caught.value.hint
    is_as_before(rig, machine)


def test_saved_state_that_is_damaged_is_refused_in_qemus_words_and_no_machine_is_left(rig: Rig) -> None:
    saved = save(rig, launched(rig))
    saved.devices.chmod(0o600)
    whole = saved.devices.read_bytes()
    saved.devices.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(BangerError) as caught:
        launched(rig, "fork", saved=saved)
    assert caught.value.kind is ErrorKind.INVALID
    assert "load" in caught.value.cause
    assert rig.processes.find(machine_of(rig.config("fork"), processes.NO_PROCESS).vm_id) is None


def test_loaded_machine_whose_disk_another_one_has_does_not_run(rig: Rig) -> None:
    """QEMU 7.2 misses its disks when it has loaded the state, later ones (10.0) when it is to go on."""
    disk = rig.home / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    devices = [Drive(disk, "data", read_only=False), UserNic()]
    saved = save(rig, launched(rig, devices=devices))

    def begin() -> None:
        rig.vmm.resume(launched(rig, "fork", devices=devices, saved=saved))

    with pytest.raises(BangerError) as caught:
        begin()
    assert "lock" in caught.value.cause


def test_memory_that_a_loaded_machine_has_a_copy_of_takes_room_only_as_long_as_it_runs(rig: Rig) -> None:
    fork = launched(rig, "fork", saved=save(rig, launched(rig)))
    assert "memory" not in [path.name for path in fork.run_dir.iterdir()]
