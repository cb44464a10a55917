"""`banger doctor --boot` against a scripted daemon: what it asks for, how it tells, and that it always cleans up."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from banger.checkup import leftovers, machine
from banger.checkup import run as checkup_run
from banger.checkup.machine import Check
from banger.checkup.report import CheckFailedError, Finding
from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import Engine
from banger.core.wire.vm_spec import VmSpec
from banger.vmm.qemu import probe
from banger.vmm.qemu.engines import QemuEngines
from banger.vmm.survey import Accelerator
from tests.support.cli import Cli, Ended
from tests.support.fake_api import FakeApi, FrameSession, as_read, event, image_json, kernel_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)

VM = vm_json("keen-owl", timings=[{"name": "boot guest", "started_s": 0.1, "duration_s": 4.2}])
ID = VM["id"]
SYSTEM = {"vmm": "qemu", "accelerator": "tcg", "version": "0"}


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without KVM that does not change."""
    found = Accelerator("tcg", "there is no /dev/kvm", "modprobe kvm-intel")
    monkeypatch.setattr(probe, "accelerator", lambda *_: found)
    monkeypatch.setattr(leftovers, "look", lambda *_: {"process": frozenset({"1 other"}), "setting": frozenset()})
    monkeypatch.setattr(checkup_run, "_GONE_WITHIN_S", 0.0)


@pytest.fixture
def daemon(api: FakeApi) -> Iterator[FakeApi]:
    """A daemon on which everything goes well."""
    api.on("GET", "/v1/system", SYSTEM)
    api.on("GET", "/v1/images", [image_json()])
    api.on("GET", "/v1/kernels/bbbbbbbbbbbb", kernel_json())
    api.on("GET", "/v1/kernels", [kernel_json()])
    api.on("POST", f"/v1/vms/{ID}/exec", talk=_alive)
    api.on("GET", "/v1/vms", [])
    api.on("GET", f"/v1/vms/{ID}/why", {"vm": VM, "why": "running"})
    api.long("POST", "/v1/vms", VM)
    api.long("POST", f"/v1/vms/{ID}/stop", {**VM, "state": "stopped", "exit_reason": "requested"})
    api.long("DELETE", f"/v1/vms/{ID}", {"id": ID, "name": "keen-owl"})
    return api


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    """The checks of a guest, for the test to fill."""
    chosen = [Check("kernel", 5, lambda _guest: Finding("6.1.0"))]
    monkeypatch.setattr(machine.Trial, "_checks", lambda *_: chosen)
    return chosen


def _alive(session: FrameSession) -> None:
    session.started()
    session.exit(0)


def rows(ended: Ended) -> dict[str, Any]:
    """The rows of the machine that was tried, by check."""
    tried = next(one for one in ended.json["machines"] if one["usable"])
    return {row["check"]: row for row in tried["rows"]}


def test_host_on_which_everything_works_ends_with_0(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    ended = cli("doctor", "--boot")
    assert ended.code == 0, ended.out
    lines = ended.out.splitlines()
    assert lines[0] == "kvm: not usable: there is no /dev/kvm"
    assert [line.split()[:2] for line in lines if line.startswith(("ok", "failed"))] == [
        ["ok", "boot"],
        ["ok", "kernel"],
        ["ok", "shutdown"],
        ["ok", "host"],
    ]
    assert lines[-1].startswith("everything works: 4 checks in ")


def test_its_vm_is_marked_ephemeral_and_on_the_accelerator_that_is_tried(
    daemon: FakeApi, cli: Cli, checks: list[Check]
) -> None:
    cli("doctor", "--boot", "--kernel", "mine", "--network", "none")
    (asked,) = daemon.asked("POST", "/v1/vms")
    spec = as_read(VmSpec, asked.body["spec"])
    assert (spec["image"], spec["kernel"], spec["network"], spec["accelerator"]) == ("debian", "mine", "none", "tcg")
    assert (spec["ephemeral"], spec["cold"]) == (True, True)
    assert 0 < spec["ttl_s"] <= 3600
    assert list(spec["labels"]) == [checkup_run.LABEL]
    assert daemon.asked("DELETE", f"/v1/vms/{ID}")


def test_json_has_every_machine_with_its_rows_and_times(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    ended = cli("doctor", "--boot", "--json")
    assert ended.json["ok"] is True
    assert [(one["accelerator"], one["usable"]) for one in ended.json["machines"]] == [("kvm", False), ("tcg", True)]
    assert {"boot", "kernel", "shutdown"} == set(rows(ended))
    assert all(row["elapsed_s"] >= 0 for row in rows(ended).values())
    assert ended.json["host"][0]["verdict"] == "ok"


def test_check_that_fails_does_not_keep_others_from_being_tried(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    def fail(_guest: object) -> Finding:
        raise CheckFailedError(
            "the root file system cannot be written", cause="Read-only file system", hint="--init none"
        )

    checks.insert(0, Check("root", 5, fail))
    ended = cli("doctor", "--boot")
    assert ended.code == 7
    assert "cause: Read-only file system" in ended.out
    assert "hint: --init none" in ended.out
    assert [line.split()[1] for line in ended.out.splitlines() if line.startswith("ok")] == [
        "boot",
        "kernel",
        "shutdown",
        "host",
    ]
    assert ended.out.splitlines()[-1].startswith("1 of 5 checks failed")


def test_check_that_hangs_is_given_up_within_its_bound(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    never = threading.Event()

    def hang(_guest: object) -> Finding:
        never.wait(60)
        return Finding("late")

    checks.insert(0, Check("exec", 0.4, hang))
    began = time.monotonic()
    try:
        ended = cli("doctor", "--boot", "--json")
    finally:
        never.set()
    assert time.monotonic() - began < 20
    assert rows(ended)["exec"]["detail"] == "no answer within 0.4 s"
    assert rows(ended)["kernel"]["verdict"] == "ok"


def test_guest_that_ends_meanwhile_skips_the_rest_and_says_why(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    def fail(_guest: object) -> Finding:
        raise CheckFailedError("no answer")

    checks.insert(0, Check("console", 5, fail))
    daemon.on(
        "GET", f"/v1/vms/{ID}/why", {"vm": {**VM, "state": "stopped"}, "why": "stopped: the guest's kernel panicked"}
    )
    ended = cli("doctor", "--boot", "--json")
    assert rows(ended)["kernel"]["verdict"] == "skipped"
    assert "kernel panicked" in rows(ended)["kernel"]["detail"]
    assert ended.code == 7


def test_guest_that_hangs_is_given_up_at_its_first_silence(
    daemon: FakeApi, cli: Cli, checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_ALIVE_TIMEOUT_S", 0.2)
    never = threading.Event()
    daemon.on("POST", f"/v1/vms/{ID}/exec", talk=lambda _session: never.wait(20), held=never)

    def hang(_guest: object) -> Finding:
        raise BangerError(ErrorKind.TIMEOUT, "no answer within 30 s")

    checks.insert(0, Check("root", 5, hang))
    try:
        ended = cli("doctor", "--boot", "--json")
    finally:
        never.set()
    assert rows(ended)["kernel"]["verdict"] == "skipped"
    assert "does not answer any more" in rows(ended)["kernel"]["detail"]
    assert daemon.asked("DELETE", f"/v1/vms/{ID}")


def test_boot_that_fails_shows_the_evidence(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    error = {
        "kind": "timeout",
        "message": 'VM "keen-owl" did not boot',
        "cause": "last words\nof the guest",
        "hint": "try q35",
    }
    daemon.on("POST", "/v1/vms", lines=[{"error": error}])
    ended = cli("doctor", "--boot")
    assert ended.code == 7
    assert 'VM "keen-owl" did not boot' in ended.out
    assert "cause: last words" in ended.out
    assert "hint: try q35" in ended.out
    assert not daemon.asked("POST", f"/v1/vms/{ID}/stop")


def test_kvm_that_the_probe_trusted_and_that_fails_is_a_failure_with_a_way_around(
    daemon: FakeApi, cli: Cli, checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    _kvm(monkeypatch, Engine("kvm", "a test guest ran on it"))
    daemon.on("GET", "/v1/system", {**SYSTEM, "accelerator": "kvm"})
    daemon.on("POST", "/v1/vms", lines=[{"error": {"kind": "unavailable", "message": "no sign of life"}}])
    ended = cli("doctor", "--boot")
    assert ended.code == 7
    assert "BANGER_VMM_ACCELERATOR=tcg" in ended.out


def test_kernel_that_turns_out_not_to_come_up_on_kvm_is_a_note_because_vms_work_emulated(
    daemon: FakeApi, cli: Cli, checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    _kvm(monkeypatch, Engine("kvm", "a test guest ran on it"))
    daemon.on("GET", "/v1/system", {**SYSTEM, "accelerator": "kvm"})
    note = event("note", message="this kernel does not come up on KVM here: silence: the machine is emulated")
    daemon.long("POST", "/v1/vms", {**VM, "accelerator": "tcg"}, note)
    ended = cli("doctor", "--boot", "--json")
    assert ended.code == 0, ended.out
    on_kvm, emulated = ended.json["machines"]
    assert [(row["check"], row["verdict"]) for row in on_kvm["rows"]] == [("boot", "note")]
    assert "silence" in on_kvm["rows"][0]["detail"]
    assert len(emulated["rows"]) > 1
    options = [as_read(VmSpec, call.body["spec"])["accelerator"] for call in daemon.asked("POST", "/v1/vms")]
    assert options == ["", "tcg"]


def test_kernel_that_is_known_not_to_come_up_on_kvm_is_not_tried_there_again(
    daemon: FakeApi, cli: Cli, checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _kvm(monkeypatch, Engine("tcg", "this kernel did not come up on KVM here: silence"))
    daemon.on("GET", "/v1/system", {**SYSTEM, "accelerator": "kvm"})
    ended = cli("doctor", "--boot")
    assert ended.code == 0, ended.out
    assert "kvm: not usable: this kernel did not come up on KVM here: silence" in ended.out
    assert asked == [kernel_json()["digest"]]


@pytest.mark.parametrize(("here", "there"), [("kvm", "tcg"), ("tcg", "kvm")])
def test_daemon_with_other_rights_than_ours_decides_what_is_tried(
    daemon: FakeApi, cli: Cli, checks: list[Check], monkeypatch: pytest.MonkeyPatch, here: str, there: str
) -> None:
    _kvm(monkeypatch, Engine(there, "as the daemon has it"))
    monkeypatch.setattr(probe, "accelerator", lambda *_: Accelerator(here, "as we have it"))
    daemon.on("GET", "/v1/system", {**SYSTEM, "accelerator": there, "accelerator_reason": "as the daemon has it"})
    told = cli("doctor", "--boot", "--json").json["machines"][0]
    assert (told["accelerator"], told["usable"], told["reason"]) == ("kvm", there == "kvm", "as the daemon has it")


def _kvm(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> list[str]:
    """A host whose KVM is fine in general; what is known of one kernel on it. The kernels that were asked about."""
    asked: list[str] = []

    def choose(_self: QemuEngines, _wish: str, digest: str) -> Engine:
        asked.append(digest)
        return engine

    monkeypatch.setattr(probe, "accelerator", lambda *_: Accelerator("kvm", "a test guest ran on it"))
    monkeypatch.setattr(QemuEngines, "choose", choose)
    return asked


def test_vm_that_runs_on_something_else_than_asked_for_is_a_failure(
    daemon: FakeApi, cli: Cli, checks: list[Check]
) -> None:
    daemon.long("POST", "/v1/vms", {**VM, "accelerator": "kvm"})
    ended = cli("doctor", "--boot", "--json")
    assert rows(ended)["boot"]["detail"] == "asked for tcg, and runs on kvm"
    assert daemon.asked("DELETE", f"/v1/vms/{ID}")


def test_guest_that_has_to_be_killed_fails_the_shutdown(daemon: FakeApi, cli: Cli, checks: list[Check]) -> None:
    note = event("note", message="the guest did not power off within 20 s: killed")
    daemon.long("POST", f"/v1/vms/{ID}/stop", {**VM, "state": "stopped"}, note)
    assert rows(cli("doctor", "--boot", "--json"))["shutdown"]["verdict"] == "failed"


def test_what_a_vm_leaves_on_the_host_fails_and_is_named(
    daemon: FakeApi, cli: Cli, checks: list[Check], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([frozenset(), *[frozenset({f"77 banger-vm-{ID}", "78 banger-vm-ffffffffffff"})] * 9])
    monkeypatch.setattr(leftovers, "look", lambda *_: {"process": next(looks), "setting": frozenset()})
    ended = cli("doctor", "--boot")
    assert ended.code == 7
    assert f"cause: process 77 banger-vm-{ID}" in ended.out
    assert "ffffffffffff" not in ended.out


def test_without_an_image_the_default_is_fetched_and_that_is_told(
    daemon: FakeApi, cli: Cli, checks: list[Check]
) -> None:
    daemon.on("GET", "/v1/images", [])
    daemon.long("POST", "/v1/images/pull", image_json())
    ended = cli("doctor", "--boot")
    assert 'no image is here yet: "debian" is fetched first' in ended.err
    assert ended.code == 0


def test_ctrl_c_while_it_boots_hangs_up_and_deletes_what_was_made(
    daemon: FakeApi, cli: Cli, checks: list[Check]
) -> None:
    held = threading.Event()
    daemon.on("POST", "/v1/vms", lines=[{"event": event("step_started", "boot guest")}], held=held)
    daemon.on("GET", "/v1/vms", [VM])

    def interrupt() -> None:
        while not daemon.asked("POST", "/v1/vms"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    ended = _interrupted(cli, interrupt)
    assert ended.code == 130
    assert daemon.hung_up.wait(5)
    (listed,) = daemon.asked("GET", "/v1/vms")
    assert listed.query["label"][0].startswith(f"{checkup_run.LABEL}=")
    assert daemon.asked("DELETE", f"/v1/vms/{ID}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_during_a_check_deletes_the_vm(
    daemon: FakeApi, cli: Cli, checks: list[Check], number: signal.Signals
) -> None:
    begun, never = threading.Event(), threading.Event()

    def hang(_guest: object) -> Finding:
        begun.set()
        never.wait(60)
        return Finding("late")

    checks.insert(0, Check("exec", 60, hang))

    def interrupt() -> None:
        begun.wait(10)
        os.kill(os.getpid(), number)

    try:
        ended = _interrupted(cli, interrupt)
    finally:
        never.set()
    assert ended.code == 128 + number
    assert daemon.asked("DELETE", f"/v1/vms/{ID}")


def _interrupted(cli: Cli, interrupt: Any) -> Ended:
    """Run the command while a thread sends this process a signal; a parent that ignores SIGINT makes no difference."""
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        return cli("doctor", "--boot")
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return Ended(ended.code, "", "")
    finally:
        thread.join()
        signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", "debian"), "go with --boot"),
        (("--boot", "--leaks"), "exclude each other"),
        (("--boot", "--network", "bridge"), '"bridge" is not a valid value for --network'),
        (("--boot", "--reach", "example.org"), '"example.org" is not a host and a port'),
        (("--boot", "--reach", "example.org:0"), "is not a host and a port"),
        (("--boot", "--reach", ":80"), "is not a host and a port"),
        (("--boot", "--reach", "example.org:٣"), "is not a host and a port"),
    ],
)
def test_what_was_typed_wrong_is_a_usage_error(
    daemon: FakeApi, cli: Cli, arguments: tuple[str, ...], said: str
) -> None:
    ended = cli("doctor", *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert not daemon.asked("POST", "/v1/vms")
