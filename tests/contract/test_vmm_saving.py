"""What the owners rely on of saved machines, whatever saves and loads them: one suite for fakes, QEMU and Firecracker."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import saver_marker
from banger.core.ports import Drive, Health, Machine, SavedMachine, UserNic
from banger.vmm import identity as processes
from tests.support.forked import forked
from tests.support.machines import FAKES, KINDS, Rig, machine_of, obstacle_to
from tests.support.tiny_guest import LETTERS
from tests.support.waiting import eventually

_SAVING = [kind for kind in KINDS if kind != "qemu-systemd"]
#: These save machines by themselves, without a process that helps.
_ALONE = ("fake-firecracker", "firecracker", "firecracker-jailed")


@pytest.fixture(params=[kind if kind in FAKES else pytest.param(kind, marks=pytest.mark.boot) for kind in _SAVING])
def rig(request: pytest.FixtureRequest, session_root: Path) -> Iterator[Rig]:
    if obstacle := obstacle_to(request.param):
        pytest.skip(obstacle)
    home = Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp"))
    rig = Rig.build(request.param, home, session_root / "proofs")
    yield rig
    rig.close()


def launched(rig: Rig, name: str = "web", saved: SavedMachine | None = None) -> Machine:
    """A machine with a disk of its own and one that is shared, whose guest says letters."""
    base, disk = rig.home / "base.img", rig.home / f"{name}.img"
    for path in (base, disk):
        path.write_bytes(bytes(1 << 20))
    drives = (Drive(disk, "data", read_only=False), Drive(base, "root", read_only=True))
    cards = (UserNic(),) if UserNic in rig.vmm.devices else ()
    config = rig.config(name, counts=True, devices=(*drives, *cards), saved=saved)
    machine = machine_of(config, rig.vmm.launch(config, lambda _: None))
    if saved is None and rig.kind not in FAKES:
        eventually(lambda: len(said(machine)) > 2, what="the guest counts")
    return machine


def said(machine: Machine) -> str:
    """The letters on the machine's console."""
    return machine.console_log.read_text().replace("up\n", "") if machine.console_log.exists() else ""


def is_in_order(letters: str) -> bool:
    return all(LETTERS[LETTERS.index(one) - len(LETTERS) + 1] == two for one, two in pairwise(letters))


def memory(rig: Rig, machine: Machine) -> str:
    """What a machine that stands still would begin with: the next letter."""
    if rig.kind in FAKES:
        return (machine.run_dir / "memory").read_text()
    return LETTERS[LETTERS.index(said(machine)[-1]) - len(LETTERS) + 1]


def noting(rig: Rig, machine: Machine, notes: list[str]) -> None:
    """To be called while it stands still."""
    notes.append(memory(rig, machine))


def first_of(rig: Rig, machine: Machine) -> str:
    """What a loaded machine began with."""
    if rig.kind in FAKES:
        return memory(rig, machine)
    return eventually(lambda: said(machine), what="the loaded guest counts")[0]


def begins(rig: Rig, machine: Machine, letter: str) -> bool:
    """A loaded machine began with that letter, or on Firecracker perhaps with the one before it.

    That one is on the console, but its instruction counts as done only when the CPU goes on (seen once of some tens).
    """
    found = first_of(rig, machine)
    return found == letter or (
        rig.kind.startswith("firecracker") and rig.kind not in FAKES and is_in_order(found + letter)
    )


def place(rig: Rig, name: str = "saved") -> Path:
    path = rig.home / "web" / name
    path.mkdir()
    return path


def save(rig: Rig, machine: Machine, into: Path, standing: Callable[[], object] = lambda: None) -> SavedMachine:
    def called() -> None:
        standing()

    return rig.vmm.save(machine, into, called, lambda _: None)


def goes_on(rig: Rig, machine: Machine) -> None:
    """The machine runs, and nothing of what its guest says was lost or said twice."""
    assert rig.vmm.condition(machine).health is Health.RUNS
    if rig.kind not in FAKES:
        before = len(said(machine))
        eventually(lambda: len(said(machine)) > before + 3, what="the guest goes on")
        assert is_in_order(said(machine))


def test_loaded_machine_stands_still_as_the_saved_one_was_until_it_is_resumed(rig: Rig) -> None:
    machine, then = launched(rig), list[str]()
    saved = save(rig, machine, place(rig), partial(noting, rig, machine, then))
    goes_on(rig, machine)
    for name in ("fork", "other"):
        fork = launched(rig, name, saved)
        assert rig.vmm.condition(fork).health is Health.PAUSED
        assert said(fork) == ""
        rig.vmm.resume(fork)
        assert begins(rig, fork, then[-1])
        goes_on(rig, fork)
    goes_on(rig, machine)


def test_files_of_a_saved_machine_are_private_sparse_and_never_change(rig: Rig) -> None:
    saved = save(rig, launched(rig), place(rig))
    assert sorted(path.name for path in saved.directory.iterdir()) == ["devices", "memory"]
    assert all(path.stat().st_mode & 0o177 == 0 for path in (saved.memory, saved.devices))
    if rig.kind not in FAKES:
        assert saved.memory.stat().st_size == saved.memory_mib << 20
        assert saved.memory.stat().st_blocks * 1024 < saved.memory_mib << 20
    before = sha256(saved.memory.read_bytes()).digest()
    for name in ("fork", "other"):
        fork = launched(rig, name, saved)
        rig.vmm.resume(fork)
        goes_on(rig, fork)
    assert sha256(saved.memory.read_bytes()).digest() == before


def test_loaded_machine_is_saved_and_loaded_again(rig: Rig) -> None:
    saved = save(rig, launched(rig), place(rig))
    for generation in ("child", "grandchild"):
        machine, then = launched(rig, generation, saved), list[str]()
        rig.vmm.resume(machine)
        first_of(rig, machine)
        saved = save(rig, machine, place(rig, generation), partial(noting, rig, machine, then))
        goes_on(rig, machine)
    fork = launched(rig, "last", saved)
    rig.vmm.resume(fork)
    assert begins(rig, fork, then[-1])


def test_machine_that_was_saved_stood_still_once_and_its_helper_is_gone(rig: Rig) -> None:
    machine = launched(rig)
    helpers: list[ProcessIdentity] = []
    stood: list[str] = []

    def standing() -> None:
        stood.append(said(machine))
        assert rig.kind in _ALONE or processes.is_same(helpers[0])
        assert rig.processes.find(machine.identity.marker) == machine.identity, "the helper is not taken for the VMM"

    rig.vmm.save(machine, place(rig), standing, helpers.append)
    goes_on(rig, machine)
    assert len(stood) == 1
    assert [one.marker for one in helpers] == ([] if rig.kind in _ALONE else [saver_marker(machine.vm_id)])
    assert rig.processes.find(saver_marker(machine.vm_id)) is None


def test_machine_that_was_paused_is_saved_and_stays_so_however_often(rig: Rig) -> None:
    machine, then = launched(rig), list[str]()
    rig.vmm.pause(machine)
    for name in ("one", "two"):
        saved = save(rig, machine, place(rig, name), partial(noting, rig, machine, then))
        assert rig.vmm.condition(machine).health is Health.PAUSED
    fork = launched(rig, "fork", saved)
    rig.vmm.resume(fork)
    assert begins(rig, fork, then[1])
    rig.vmm.resume(machine)
    goes_on(rig, machine)


@pytest.mark.parametrize(
    ("how", "kind"),
    [("standing", ErrorKind.EXHAUSTED), ("cancelled", ErrorKind.CANCELLED), ("spawn", ErrorKind.INTERNAL)],
)
def test_save_that_fails_leaves_nothing_and_the_machine_running(rig: Rig, how: str, kind: ErrorKind) -> None:
    if how == "spawn" and rig.kind in _ALONE:
        return  # there is nothing to spawn
    machine, into, token = launched(rig), place(rig), CancelToken()

    def fail(when: str) -> None:
        if how == "cancelled":
            token.cancel()
            token.raise_if_cancelled()
        if how == when:
            raise BangerError(kind, "it failed")

    with pytest.raises(BangerError) as caught:
        rig.vmm.save(
            machine, into, lambda: fail("standing"), lambda _: fail("spawn") if how == "spawn" else None, token
        )
    assert caught.value.kind is kind
    assert not list(into.iterdir())
    assert rig.processes.find(saver_marker(machine.vm_id)) is None
    goes_on(rig, machine)
    save(rig, machine, into)


def test_whatever_is_raised_while_it_stands_comes_back_as_it_was(rig: Rig) -> None:
    machine, into = launched(rig), place(rig)

    def standing() -> None:
        raise PermissionError("not here")

    with pytest.raises(PermissionError, match="not here"):
        save(rig, machine, into, standing)
    assert not list(into.iterdir())
    goes_on(rig, machine)


def test_machine_that_is_gone_is_not_saved(rig: Rig) -> None:
    machine, into = launched(rig), place(rig)
    rig.processes.kill(machine.identity)
    with pytest.raises(BangerError) as caught:
        save(rig, machine, into)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert not list(into.iterdir())


@pytest.mark.parametrize("what", ["vmm", "vmm_version", "cpu", "accelerator"])
def test_machine_that_something_else_saved_is_refused_and_both_are_named(rig: Rig, what: str) -> None:
    saved = save(rig, launched(rig), place(rig))
    other = replace(saved, **{what: "another"})  # type: ignore[arg-type]
    with pytest.raises(BangerError) as caught:
        launched(rig, "fork", other)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert '"another"' in caught.value.cause
    assert f'"{getattr(saved, what)}"' in caught.value.cause
    rig.vmm.check_saved(saved, "fork")
    if what != "accelerator":
        with pytest.raises(BangerError, match="was saved with another"):
            rig.vmm.check_saved(other, "fork")


def test_saved_machine_of_another_size_is_refused(rig: Rig) -> None:
    saved = save(rig, launched(rig), place(rig))
    with pytest.raises(BangerError) as caught:
        launched(rig, "fork", replace(saved, memory_mib=64))
    assert caught.value.kind is ErrorKind.INVALID


def test_machine_with_other_disks_is_refused(rig: Rig) -> None:
    if rig.kind in FAKES:
        return  # a fake looks at no disk
    saved = save(rig, launched(rig), place(rig))
    config = rig.config("fork", counts=True, devices=(), saved=saved)
    with pytest.raises(BangerError, match="it was another machine") as caught:
        rig.vmm.launch(config, lambda _: None)
    assert caught.value.kind is ErrorKind.INVALID


def test_save_that_nobody_ended_is_given_up_when_the_machine_is_resumed(rig: Rig) -> None:
    """The daemon was killed in the moment in which the machine stands still."""
    machine, into = launched(rig), place(rig)

    died = forked(lambda: save(rig, machine, into, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert died == -signal.SIGKILL
    helper = rig.processes.find(saver_marker(machine.vm_id))
    if helper is not None:
        rig.processes.kill(helper)
    rig.vmm.resume(machine)
    goes_on(rig, machine)
    saved = save(rig, machine, place(rig, "again"))
    large = {path.parent for path in machine.run_dir.rglob("*") if path.is_file() and path.stat().st_size >= 32 << 20}
    assert large <= {into, saved.directory}
