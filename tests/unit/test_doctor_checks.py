"""The doctor sees what is missing and says what to type; only what is needed makes it fail."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from banger import doctor
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmmProgram
from banger.doctor import PROGRAMS, Check, Status
from banger.layout import Layout
from banger.network.namespace import probe as namespaces
from banger.vmm.qemu import probe
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi

pytest_plugins = ("tests.support.cli_fixtures",)


@pytest.fixture
def layout(home: Path) -> Layout:
    return Layout.from_environment()


@pytest.fixture
def no_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking about KVM starts a guest: not in unit tests."""
    monkeypatch.setattr(doctor, "check_accelerator", lambda *_: Check("kvm", Status.OK, "a test guest ran on it"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_missing_program_names_its_package(program: doctor.Program) -> None:
    check = doctor.check_program(program, lambda _place: None)
    assert check.verdict is (Status.FAILED if program.needed else Status.WARNING)
    assert check.remedy == f"apt-get install {program.package}"


def test_any_place_of_a_program_will_do() -> None:
    program = doctor.RequiredProgram("x", ("a", "b"), "p", needed=True, use="u")
    check = doctor.check_program(program, lambda place: "/bin/b" if place == "b" else None)
    assert (check.verdict, check.detail) == (Status.OK, "/bin/b")


@pytest.mark.parametrize(
    ("free_bytes", "verdict"),
    [(1 << 40, Status.OK), (1 << 30, Status.WARNING), (1 << 20, Status.FAILED)],
)
def test_disk_space_is_judged(layout: Layout, free_bytes: int, verdict: Status) -> None:
    check = doctor.check_space(layout, free_bytes)
    assert check.verdict is verdict
    assert bool(check.remedy) is (verdict is not Status.OK)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((3, 51, 3), Status.OK),
        ((3, 60, 0), Status.OK),
        ((3, 51, 2), Status.WARNING),
        ((3, 9), Status.WARNING),
    ],
)
def test_sqlite_with_the_wal_bug_is_a_warning(version: tuple[int, ...], verdict: Status) -> None:
    assert doctor.check_sqlite(version).verdict is verdict


def test_long_run_directory_is_found_before_a_socket_fails() -> None:
    deep = Path("/tmp") / ("x" * 90)
    checks = list(doctor.check_directories(Layout(deep, deep, deep, deep)))
    assert [check.name for check in checks if check.verdict is Status.FAILED] == ["socket paths"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_directory_of_somebody_else_fails(layout: Layout, home: Path) -> None:
    home.chmod(0o755)
    os.seteuid(65534)
    try:
        checks = list(doctor.check_directories(layout))
    finally:
        os.seteuid(0)
    assert {check.verdict for check in checks} == {Status.FAILED}
    assert all("BANGER_HOME" in check.remedy for check in checks)


def test_daemon_that_does_not_run_is_fine(layout: Layout) -> None:
    assert doctor.check_daemon(layout).verdict is Status.OK


def test_socket_that_nobody_serves_is_a_failure(layout: Layout) -> None:
    layout.run.mkdir()
    layout.socket.touch()
    check = doctor.check_daemon(layout)
    assert (check.verdict, check.remedy) == (Status.FAILED, "banger daemon start")


def test_emulation_is_a_warning_that_says_why(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "accelerator", lambda *_: probe.Accelerator("tcg", "no /dev/kvm", "modprobe kvm"))
    check = doctor.check_accelerator(layout, Config.load(layout.config_file))
    assert (check.verdict, check.remedy) == (Status.WARNING, "modprobe kvm")
    assert "no /dev/kvm" in check.detail

    def fail(*_: object) -> None:
        raise BangerError(ErrorKind.UNAVAILABLE, "no qemu", hint="apt-get install qemu-system-x86")

    monkeypatch.setattr(probe, "accelerator", fail)
    check = doctor.check_accelerator(layout, Config.load(layout.config_file))
    assert (check.verdict, check.remedy) == (Status.FAILED, "apt-get install qemu-system-x86")


@pytest.mark.usefixtures("no_guest")
def test_broken_settings_do_not_stop_the_other_checks(cli: Cli, layout: Layout) -> None:
    layout.config_file.parent.mkdir()
    layout.config_file.write_text("[vm]\ncpus = 'many'\n")
    ended = cli("doctor")
    assert ended.code == 7
    assert ended.out.startswith("failed   settings")
    assert "data directory" in ended.out


@pytest.mark.usefixtures("no_guest")
def test_doctor_exits_7_only_for_what_is_needed(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET", "/v1/system", {"pid": 42})
    found = {"ssh": None}
    monkeypatch.setattr(doctor, "_find", lambda place: found.get(place, f"/usr/bin/{place}"))
    ended = cli("doctor")
    assert ended.code == 0
    assert "warning  ssh             not installed: banger vm ssh\n" in ended.out
    assert "hint: apt-get install openssh-client\n" in ended.out
    assert "pid 42 answers" in ended.out
    found["dropbear"] = None
    rows = cli("doctor", "--json")
    assert rows.code == 7
    assert [row["name"] for row in rows.json if row["verdict"] == "failed"] == ["dropbear"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"name": "systemd", "reason": "it is one", "limited": True}, "services of systemd (it is one), limited"),
        (
            {"name": "session", "reason": "it is none", "limited": False, "unlimited_because": "no cgroups"},
            "sessions of their own (it is none), not limited: no cgroups",
        ),
        (None, "the daemon does not tell"),
    ],
)
def test_launcher_is_explained(facts: object, words: str) -> None:
    check = doctor.explain_launcher(facts)
    assert check.verdict is Status.OK
    assert words in check.detail


@pytest.mark.parametrize(
    ("uid", "launcher", "verdict", "words"),
    [
        (0, {"jailed": True}, Status.OK, "a user of its own"),
        (0, {"jailed": True, "jail_obstacle": "not permitted"}, Status.FAILED, "no VM can be started: not permitted"),
        (0, {"jailed": False, "unjailed_because": "vmm.jail is off"}, Status.WARNING, "as root: vmm.jail is off"),
        (1000, {"jailed": False, "unjailed_because": "the daemon is not root's"}, Status.OK, "as the daemon's user"),
        (0, {"name": "session"}, Status.OK, "does not tell"),
        (0, {"error": "no bus"}, Status.OK, "does not tell"),
    ],
)
def test_jail_that_roots_daemon_does_not_use_is_warned_of(
    uid: int, launcher: object, verdict: Status, words: str
) -> None:
    check = doctor.explain_jail(uid, launcher)
    assert check.verdict is verdict
    assert words in check.detail
    assert bool(check.remedy) is (verdict is not Status.OK)


@pytest.mark.parametrize(("here", "there"), [(Status.OK, "tcg"), (Status.WARNING, "kvm")])
def test_daemon_that_finds_another_accelerator_is_told(api: FakeApi, layout: Layout, here: Status, there: str) -> None:
    api.on("GET", "/v1/system", {"accelerator": there, "accelerator_reason": "no permission for /dev/kvm"})
    (check,) = doctor.check_agreement(layout, Check("kvm", here, ""))
    assert check.verdict is Status.WARNING
    assert "no permission for /dev/kvm" in check.detail
    assert "banger daemon stop" in check.remedy


@pytest.mark.parametrize(("here", "there"), [(Status.OK, "kvm"), (Status.WARNING, "tcg")])
def test_daemon_that_finds_the_same_is_not_worth_a_line(api: FakeApi, layout: Layout, here: Status, there: str) -> None:
    api.on("GET", "/v1/system", {"accelerator": there, "accelerator_reason": ""})
    assert list(doctor.check_agreement(layout, Check("kvm", here, ""))) == []


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        ({}, Status.OK, "1.16.1 (installed, for new VMs), supported"),
        ({"is_default": False}, Status.OK, "1.16.1 (installed), supported"),
        ({"is_outdated": True}, Status.WARNING, "1.16.1"),
        ({"is_outdated": True, "is_default": False}, Status.OK, "1.16.1"),
        ({"jail_problem": "there is no jailer"}, Status.WARNING, "it cannot be jailed: there is no jailer"),
        ({"broken": "jailer missing"}, Status.FAILED, "1.16.1 cannot be used: jailer missing"),
        ({"origin": "path"}, Status.OK, "1.16.1 (/opt/firecracker, for new VMs)"),
    ],
)
def test_firecracker_that_is_here_is_judged(facts: dict[str, Any], verdict: Status, words: str) -> None:
    program = VmmProgram("firecracker", "1.16.1", "installed", "/opt/firecracker", is_default=True, support="supported")
    check = doctor.explain_vmm(replace(program, **facts))
    assert (check.name, check.verdict) == ("firecracker", verdict)
    assert words in check.detail
    assert check.remedy.startswith("banger driver install firecracker")


def test_firecracker_whose_files_have_changed_fails_with_the_command_that_mends_it() -> None:
    program = VmmProgram("firecracker", "1.16.1", "installed", "/x", is_default=True)
    check = doctor.explain_vmm(program, "jailer has another SHA-256")
    assert (check.verdict, check.remedy) == (Status.FAILED, "banger driver install firecracker --version 1.16.1")


@pytest.mark.parametrize(
    ("driver", "verdict"), [("firecracker", Status.FAILED), ("auto", Status.OK), ("qemu", Status.OK)]
)
def test_missing_firecracker_is_fine_unless_it_is_the_configured_vmm(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, driver: str, verdict: Status
) -> None:
    monkeypatch.setattr("banger.vmm.programs.all_programs", lambda *_: [])
    (check,) = doctor.check_vmms(layout, Config.load(layout.config_file, {"BANGER_VMM_DRIVER": driver}))
    assert check.verdict is verdict


@pytest.mark.parametrize(
    ("where", "lingers", "told"), [("/run/user/{}", False, True), ("/run/user/{}", True, False), ("/x", False, False)]
)
def test_sockets_that_a_logout_takes_away_are_told_before(
    tmp_path: Path, where: str, *, lingers: bool, told: bool
) -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    if lingers:
        (tmp_path / user).touch()
    layout = Layout(tmp_path, Path(where.format(os.getuid()), "banger"), tmp_path, tmp_path)
    checks = list(doctor.check_logout(layout, systemd=tmp_path, kept=tmp_path))
    assert [check.verdict for check in checks] == [Status.WARNING] * told
    assert all("enable-linger" in check.remedy for check in checks)
    assert not list(doctor.check_logout(layout, systemd=tmp_path / "none", kept=tmp_path))


def test_missing_network_is_told_with_the_remedy_and_with_what_stands_in_for_it() -> None:
    found = doctor.explain_user_network("pasta is not installed: apt-get install passt")
    assert (found.verdict, found.remedy) == (Status.WARNING, "apt-get install passt")
    assert "pasta is not installed" in found.detail
    assert "slirp" in found.detail
    assert "this host's own services" in found.detail


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("Couldn't open network namespace /proc/7/ns/net: Permission denied", "AppArmor"),
        ("External interface not usable", "no default route"),
        ("Failed to open tun socket in namespace", "/dev/net/tun"),
        ("", "pasta --config-net"),
    ],
)
def test_network_program_that_is_there_and_does_not_start_is_found_with_its_words_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, remedy: str
) -> None:
    program = tmp_path / "pasta"
    program.write_text(f'#!/bin/sh\necho "Failed to send 68 bytes to syslog" >&2\necho "{words}" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(namespaces, "require_program", lambda _: str(program))
    found = doctor.explain_user_network("", namespaces.failure())
    assert found.verdict is Status.WARNING
    assert (words or "status 1") in found.detail
    assert "syslog" not in found.detail
    assert remedy in found.remedy


def test_network_program_that_works_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "require_program", lambda _: "/bin/true")
    assert doctor.explain_user_network("", namespaces.failure()).verdict is Status.OK
