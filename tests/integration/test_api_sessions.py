"""Commands and files over the HTTP surface, with guests that a test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.actors.messages import DeleteVm
from banger.client import path_of
from banger.client.conversation import converse
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, ExitStatus, Stream, Terminal
from banger.core.frames import FrameType
from banger.core.guest_facts import GuestFacts, NetFacts
from banger.core.models import Vm
from banger.core.ports import GuestPath
from banger.core.wire.vm_spec import VmSpec
from banger.sdk import Machine
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create
from tests.support.saved_vms import delete_snapshot
from tests.support.scripted_guest import Script, ScriptedGuest, ScriptedProcess
from tests.support.served import Served
from tests.support.waiting import eventually

EXEC = {"argv": ["cat"], "env": ["A=b"], "user": "", "workdir": "", "tty": None, "timeout_s": None}


async def shout(process: ScriptedProcess) -> ExitStatus:
    """Gives its input back in capitals, and complains."""
    while (data := await process.inputs.get()) is not None:
        process.say(data.upper())
    process.say(b"done", Stream.STDERR)
    return ExitStatus(3)


async def stay(process: ScriptedProcess) -> ExitStatus:
    """Runs until it is ended, and tells what it is told."""
    while True:
        process.say(f"{await process.wishes.get()}\n".encode())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    vmm = FakeVmm()
    world = World(tmp_path / "home", vmm)
    world.guests.on_power_off = lambda vm: vmm.power_down(None, world.layout.vm_run_dir(vm.id))
    served = Served(world)
    yield served
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    served.close()
    world.stop()


def running(served: Served, script: Script, **spec: Any) -> tuple[Vm, ScriptedGuest]:
    guest = ScriptedGuest(script, GuestPath("file", is_link=True, real_path="/real"))
    served.world.guests.sessions = lambda _: guest
    return create(served.world, start=True, **spec), guest


def test_exec_carries_input_both_outputs_and_the_exit_code(served: Served) -> None:
    vm, guest = running(served, shout, user="app", workdir="/srv")
    ended = converse(served.client.frames(path_of("vms", vm.name, "exec"), EXEC), b"hello")
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"HELLO", b"done")
    assert guest.requests == [ExecRequest(("cat",), ("A=b",), "app", "/srv")]
    assert guest.processes[0].was_closed


def test_exec_takes_a_checkpoint_first_if_it_is_asked_to_and_tells_how_that_goes(served: Served) -> None:
    vm, guest = running(served, shout)
    heard: list[object] = []
    config = {**EXEC, "checkpoint": "auto"}
    ended = converse(served.client.frames(path_of("vms", vm.name, "exec"), config), b"hello", heard.append)
    assert (ended.code, ended.stdout, len(guest.processes)) == (3, b"HELLO", 1)
    assert heard
    [taken] = served.world.store.snapshots.all()
    assert (taken.name, taken.vm_id, taken.is_checkpoint) == ("web-before-1", vm.id, True)
    assert isinstance(served.world.vmm, FakeVmm)
    served.world.vmm.cannot_save = "it holds a device of the host"
    with pytest.raises(BangerError) as caught:
        converse(served.client.frames(path_of("vms", vm.name, "exec"), config))
    assert (caught.value.cause, len(guest.processes)) == ("it holds a device of the host", 1)
    delete_snapshot(served.world, taken)


def test_exec_of_a_caller_without_input_says_so_with_the_request(served: Served) -> None:
    vm, guest = running(served, shout)
    assert converse(served.client.frames(path_of("vms", vm.name, "exec"), EXEC)).stderr == b"done"
    assert guest.requests == [ExecRequest(("cat",), ("A=b",), has_input=False)]


def test_exec_passes_signals_and_sizes_on(served: Served) -> None:
    vm, guest = running(served, stay)
    terminal = {"rows": 24, "columns": 80, "term": "vt100"}
    channel = served.client.frames(path_of("vms", vm.name, "exec"), {**EXEC, "tty": terminal})
    channel.put(FrameType.SIGNAL, b"NONSENSE")
    channel.put(FrameType.SIGNAL, b"USR1")
    channel.put_json(FrameType.RESIZE, {"rows": 50, "columns": 132})
    said = b""
    while said != b"USR1\n(50, 132)\n":
        frame = channel.receive(10)
        assert frame is not None, said
        said += frame[1] if frame[0] is FrameType.STDOUT else b""
    channel.close()
    eventually(lambda: guest.processes[0].was_closed, what="who hangs up ends the command")
    assert guest.requests == [ExecRequest(("cat",), ("A=b",), tty=Terminal(24, 80, "vt100"))]


def test_exec_that_takes_too_long_is_a_timeout_and_ended(served: Served) -> None:
    vm, guest = running(served, stay)
    with pytest.raises(BangerError) as caught:
        converse(served.client.frames(path_of("vms", vm.name, "exec"), {**EXEC, "timeout_s": 0.1}))
    assert (caught.value.kind, caught.value.subject) == (ErrorKind.TIMEOUT, vm.name)
    assert guest.processes[0].was_closed


def test_exec_in_a_vm_that_does_not_run_is_refused(served: Served) -> None:
    vm = create(served.world)
    with pytest.raises(BangerError) as caught:
        converse(served.client.frames(path_of("vms", vm.name, "exec"), EXEC))
    assert caught.value.kind is ErrorKind.CONFLICT


def test_figures_of_a_guest_are_answered_as_the_sdk_reads_them(served: Served) -> None:
    vm, guest = running(served, shout)
    guest.figures = GuestFacts(uptime_ms=7, nets=(NetFacts("eth0", addresses=("10.0.2.15/24",)),))
    answer = served.client.get(path_of("vms", vm.name, "facts"))
    assert answer["nets"][0]["addresses"] == ["10.0.2.15/24"]
    assert Machine(served.client, served.client.get(path_of("vms", vm.name))).facts() == guest.figures


def test_figures_of_a_vm_that_does_not_run_are_refused(served: Served) -> None:
    vm = create(served.world)
    with pytest.raises(BangerError) as caught:
        served.client.get(path_of("vms", vm.name, "facts"))
    assert caught.value.kind is ErrorKind.CONFLICT


def test_files_are_described_put_and_got(served: Served) -> None:
    vm, guest = running(served, shout)
    found = served.client.get(path_of("vms", vm.name, "files", "stat"), {"path": "/link"})
    assert found == {"path": "/link", "kind": "file", "is_link": True, "real_path": "/real"}
    put = served.client.frames(path_of("vms", vm.name, "files", "put"), {}, {"directory": "/in"})
    assert converse(put, b"tar").stdout == b"TAR"
    assert converse(served.client.frames(path_of("vms", vm.name, "files", "get"), {}, {"path": "/out"})).code == 3
    assert guest.requests == ["/link", "/in", "/out"]
    with pytest.raises(BangerError) as caught:
        served.client.get(path_of("vms", vm.name, "files", "stat"), {"path": "link"})
    assert caught.value.kind is ErrorKind.USAGE


def test_run_of_an_ephemeral_vm_ends_with_its_deletion_also_when_the_guest_is_lost(served: Served) -> None:
    async def lost(process: ScriptedProcess) -> ExitStatus:
        await asyncio.sleep(0)
        raise BangerError(ErrorKind.UNKNOWN_OUTCOME, "lost the guest")

    config = {"name": "", "spec": {"image": "debian", "ephemeral": True}, "exec": EXEC, "detach": False}
    for script in (shout, lost):
        served.world.guests.sessions = lambda _, script=script: ScriptedGuest(script)  # type: ignore[misc]
        events: list[object] = []
        if script is shout:
            ended = converse(served.client.frames("/v1/vms/run", config), b"x", events.append)
            assert (ended.code, ended.stdout) == (3, b"X")
            assert events
        else:
            with pytest.raises(BangerError) as caught:
                converse(served.client.frames("/v1/vms/run", config), b"x")
            assert caught.value.kind is ErrorKind.UNKNOWN_OUTCOME
        assert served.world.store.vms.all() == []


def test_run_that_is_detached_leaves_its_command_to_the_vm(served: Served) -> None:
    guest = ScriptedGuest(stay)
    served.world.guests.sessions = lambda _: guest
    spec = {"image": "debian", "env": ["B=c"]}
    config = {"name": "web", "spec": spec, "exec": {**EXEC, "user": "app"}, "detach": True}
    assert converse(served.client.frames("/v1/vms/run", config)).code == 0
    vm = served.world.vm("web")
    assert vm.spec == VmSpec("debian", cpus=vm.spec.cpus, memory_mib=vm.spec.memory_mib, disk_mib=vm.spec.disk_mib,
                             env=("B=c", "A=b"), user="app", command=("cat",))  # fmt: skip
    assert guest.requests == []
