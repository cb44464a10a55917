"""`banger daemon`: status, stop, logs, and the systemd unit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from banger.commands import daemon as daemon_commands
from banger.commands import service
from banger.commands.logfile import read_log
from banger.commands.systemd_unit import render_unit
from banger.core.errors import BangerError
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi

pytest_plugins = ("tests.support.cli_fixtures",)

SYSTEM = {
    "version": "0.1.0", "pid": 999_999_999, "uid": 0, "started_at": "2026-11-23T12:00:00.000Z", "data_dir": "/d",
    "socket": "/s", "vmm": "qemu", "accelerator": "tcg", "vms": {"total": 3, "running": 1}, "operations": 0,
}  # fmt: skip


def test_status_of_a_running_daemon(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/system", SYSTEM)
    ended = cli("daemon", "status")
    assert ended.code == 0
    assert "pid 999999999" in ended.out
    assert "1 running of 3" in ended.out
    assert cli("daemon", "status", "--json").json == {"running": True, **SYSTEM}


def test_status_without_a_daemon_starts_none_and_exits_7(cli: Cli, home: Path) -> None:
    ended = cli("daemon", "status")
    assert (ended.code, ended.out) == (7, "the daemon is not running\n")
    assert cli("daemon", "status", "--json").json["running"] is False
    assert not list(home.iterdir())


def test_stop_asks_and_waits_for_the_process(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET", "/v1/system", SYSTEM)
    api.on("POST", "/v1/system/shutdown", {"stopping": True}, status=202)
    looks = iter([True, True, False])
    monkeypatch.setattr(daemon_commands, "_alive", lambda pid: pid == SYSTEM["pid"] and next(looks))
    monkeypatch.setattr(daemon_commands, "_POLL_S", 0)
    assert cli("daemon", "stop").err == "the daemon has stopped\n"
    assert next(looks, None) is None
    assert len(api.asked("POST", "/v1/system/shutdown")) == 1


def test_stop_without_a_daemon_succeeds_and_says_so(cli: Cli) -> None:
    ended = cli("daemon", "stop")
    assert (ended.code, ended.err) == (0, "the daemon is not running\n")


def test_stop_gives_up_on_a_daemon_that_stays(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET", "/v1/system", SYSTEM)
    api.on("POST", "/v1/system/shutdown", {}, status=202)
    monkeypatch.setattr(daemon_commands, "_alive", lambda _pid: True)
    monkeypatch.setattr(daemon_commands, "_STOP_TIMEOUT_S", 0)
    assert cli("daemon", "stop").code == 124


def test_logs_print_the_tail(cli: Cli, home: Path) -> None:
    log = home / "data" / "daemon.log"
    log.parent.mkdir()
    log.write_text("one\ntwo\nthree\n")
    assert cli("daemon", "logs").out == "one\ntwo\nthree\n"
    assert cli("daemon", "logs", "-n", "1").out == "three\n"
    assert cli("daemon", "logs", "-n", "1", "--json").out == '{"line": "three"}\n'


def test_logs_without_a_log_say_what_to_do(cli: Cli) -> None:
    ended = cli("daemon", "logs")
    assert ended.code == 3
    assert "banger daemon status" in ended.err


def test_followed_log_goes_on_with_what_is_added(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("old\npart")
    lines = read_log(path, 1, follow=True)
    assert next(lines) == "part"
    with path.open("a") as file:
        file.write("ial\nnew\nunfinished")
    assert [next(lines), next(lines)] == ["ial", "new"]
    lines.close()  # type: ignore[attr-defined]  # it is a generator


def test_dev_and_run_become_the_daemon(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[dict[str, Any]] = []
    monkeypatch.setattr(daemon_commands, "_become_daemon", lambda **facts: became.append(facts) or 0)
    for arguments in (("--dev",), ("run",), ("run", "--background")):
        assert cli("daemon", *arguments).code == 0
    assert became == [
        {"foreground": True, "dev": True}, {"foreground": True, "dev": False}, {"foreground": False, "dev": False},
    ]  # fmt: skip


@pytest.fixture
def commands(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Units go below ``home``; what systemctl was asked."""
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(service, "_SYSTEM_UNITS", home / "units")
    monkeypatch.setattr(service, "_can_run_systemctl", lambda: True)
    monkeypatch.setattr(service, "_run", asked.append)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    return asked


@pytest.mark.parametrize(
    ("flag", "euid", "unit"),
    [
        ([], 0, "units"),
        ([], 1000, "xdg/systemd/user"),
        (["--user"], 0, "xdg/systemd/user"),
        (["--system"], 0, "units"),
    ],
)
def test_install_writes_the_unit_and_starts_it(
    cli: Cli, home: Path, commands: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch,
    flag: list[str], euid: int, unit: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(service.os, "geteuid", lambda: euid)
    scope = ["--user"] if "user" in unit else []
    assert cli("daemon", "install", *flag).code == 0
    text = (home / unit / "banger.service").read_text()
    assert f"Environment=BANGER_HOME={home}\n" in text
    assert commands == [
        ["systemctl", *scope, "daemon-reload"],
        ["systemctl", *scope, "enable", "--now", "banger.service"],
    ]
    commands.clear()
    assert cli("daemon", "uninstall", *flag).code == 0
    assert not (home / unit / "banger.service").exists()
    assert commands[0] == ["systemctl", *scope, "disable", "--now", "banger.service"]


@pytest.mark.parametrize("umask", [0, 0o077])
def test_installed_unit_is_everybodys_to_read_and_nobody_elses_to_write_whatever_the_umask(
    cli: Cli, home: Path, commands: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    monkeypatch.setattr(service.os, "geteuid", lambda: 1000)
    unit = home / "xdg" / "systemd" / "user" / "banger.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("an older one")
    unit.chmod(0o666)
    before = os.umask(umask)
    try:
        assert cli("daemon", "install").code == 0
    finally:
        kept = os.umask(before)
    assert (unit.stat().st_mode & 0o777, kept) == (0o644, umask)


def test_install_for_the_system_needs_root(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.os, "geteuid", lambda: 1000)
    ended = cli("daemon", "install", "--system")
    assert ended.code == 6
    assert "sudo banger daemon install --system" in ended.err


def test_install_without_systemd_says_what_to_type(
    cli: Cli, home: Path, commands: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_can_run_systemctl", lambda: False)
    ended = cli("daemon", "install", "--system")
    assert (ended.code, ended.out, commands) == (0, f"{home}/units/banger.service\n", [])
    assert "  systemctl enable --now banger.service\n" in ended.err


def test_systemctl_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BangerError, match="oh no") as raised:
        service._run(["sh", "-c", "echo oh no >&2; exit 1"])
    assert raised.value.hint.startswith("journalctl")


def test_unit_lets_vms_outlive_the_daemon() -> None:
    unit = render_unit(["/usr/bin/banger", "daemon", "run"], is_system=True)
    for line in ("Type=notify", "KillMode=process", "Restart=on-failure", "WatchdogSec=60", "NoNewPrivileges=yes"):
        assert f"\n{line}\n" in unit
    for isolation in ("Private", "Protect", "MemoryDeny", "ReadOnly", "RestrictNamespaces"):
        assert isolation not in unit, "a mount namespace would be kept alive by the VMs"
    assert "NoNewPrivileges" not in render_unit(["/usr/bin/banger"], is_system=False)


def test_unit_quotes_what_systemd_would_read_otherwise() -> None:
    unit = render_unit(["/opt/my py", "50%", "$HOME", 'a"b'], is_system=False, environment=["A=b c", "B=$x%"])
    assert 'ExecStart="/opt/my py" 50%% $$HOME "a\\"b"\n' in unit
    assert 'Environment="A=b c"\nEnvironment=B=$x%%\n' in unit


@pytest.mark.parametrize("is_system", [True, False])
def test_unit_is_accepted_by_systemd(tmp_path: Path, is_system: bool) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "banger.service"
    path.write_text(render_unit(["/bin/true", "daemon run"], is_system=is_system, environment=["A=b c"]))
    scope = [] if is_system else ["--user"]
    done = subprocess.run(["systemd-analyze", *scope, "verify", str(path)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "banger.service" in line]
    assert not complaints
