"""What the owners rely on of saved machines, whatever saves and loads them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import saver_marker
from banger.core.ports import Health, Machine, SavedMachine
from banger.vmm import identity as processes
from tests.support.fake_vmm import FRESH_MEMORY, FakeVmm
from tests.support.machines import Rig, machine_of


@pytest.fixture
def rig(session_root: Path) -> Iterator[Rig]:
    rig = Rig.build("fake", Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp")), session_root / "proofs")
    yield rig
    rig.close()


def launched(rig: Rig, name: str = "web", saved: SavedMachine | None = None) -> Machine:
    config = rig.config(name, saved=saved)
    return machine_of(config, rig.vmm.launch(config, lambda _: None))


def place(rig: Rig, name: str = "saved") -> Path:
    path = rig.home / "web" / name
    path.mkdir()
    return path


def save(rig: Rig, machine: Machine, into: Path) -> SavedMachine:
    return rig.vmm.save(machine, into, lambda: None, lambda _: None)


def memory_of(machine: Machine) -> str:
    return (machine.run_dir / "memory").read_text()


def test_loaded_machine_stands_still_with_the_saved_memory_until_it_is_resumed(rig: Rig) -> None:
    machine = launched(rig)
    (machine.run_dir / "memory").write_text("then")
    saved = save(rig, machine, place(rig))
    (machine.run_dir / "memory").write_text("later")
    fork = launched(rig, "fork", saved)
    assert rig.vmm.condition(fork).health is Health.PAUSED
    rig.vmm.resume(fork)
    assert rig.vmm.condition(fork).health is Health.RUNS
    assert memory_of(fork) == "then" != FRESH_MEMORY


def test_machine_that_was_saved_goes_on_in_its_process_and_its_helper_is_gone(rig: Rig) -> None:
    machine = launched(rig)
    helpers: list[ProcessIdentity] = []
    stood: list[Health] = []
    saved = rig.vmm.save(machine, place(rig), lambda: stood.append(rig.vmm.condition(machine).health), helpers.append)
    assert stood == [Health.PAUSED]
    assert rig.vmm.condition(machine).health is Health.RUNS
    assert [one.marker for one in helpers] == [saver_marker(machine.vm_id)]
    assert not processes.is_same(helpers[0])
    assert sorted(path.name for path in saved.directory.iterdir()) == ["devices", "memory"]


def test_machine_that_was_paused_is_saved_and_stays_so(rig: Rig) -> None:
    machine = launched(rig)
    rig.vmm.pause(machine)
    save(rig, machine, place(rig))
    assert rig.vmm.condition(machine).health is Health.PAUSED


@pytest.mark.parametrize("how", ["standing", "cancelled", "helper"])
def test_save_that_fails_leaves_nothing_and_the_machine_running(rig: Rig, how: str) -> None:
    assert isinstance(rig.vmm, FakeVmm)
    machine, into, token = launched(rig), place(rig), CancelToken()
    helpers: list[ProcessIdentity] = []

    def standing() -> None:
        raise BangerError(ErrorKind.EXHAUSTED, "no room for the disk")

    rig.vmm.while_saving = {
        "cancelled": token.cancel,
        "helper": lambda: rig.processes.kill(helpers[0]),
    }.get(how, lambda: None)
    with pytest.raises(BangerError) as caught:
        rig.vmm.save(machine, into, standing, helpers.append, token)
    kinds = {"standing": ErrorKind.EXHAUSTED, "cancelled": ErrorKind.CANCELLED, "helper": ErrorKind.UNAVAILABLE}
    assert caught.value.kind is kinds[how]
    assert not list(into.iterdir())
    assert not processes.is_same(helpers[0])
    assert rig.vmm.condition(machine).health is Health.RUNS


@pytest.mark.parametrize("what", ["vmm", "vmm_version", "cpu", "accelerator"])
def test_machine_that_something_else_saved_is_refused_and_both_are_named(rig: Rig, what: str) -> None:
    saved = save(rig, launched(rig), place(rig))
    other = replace(saved, **{what: "another"})  # type: ignore[arg-type]
    with pytest.raises(BangerError) as caught:
        launched(rig, "fork", other)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert '"another"' in caught.value.cause
    assert f'"{getattr(saved, what)}"' in caught.value.cause
