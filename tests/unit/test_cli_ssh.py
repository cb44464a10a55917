"""`banger vm ssh` becomes the user's ssh, which accepts this guest's key and no other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from banger.commands.ssh import split_ssh_arguments, ssh_options
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi

pytest_plugins = ("tests.support.cli_fixtures",)

ACCESS: dict[str, Any] = {
    "user": "root", "private_key_path": "/data dir/100%/id", "known_hosts_path": "/data dir/kh",
    "host_key": "ssh-ed25519 AAAA", "host_key_alias": "banger-0123456789ab",
}  # fmt: skip


@pytest.fixture
def executed(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    api.on("GET", "/v1/vms/web/access", ACCESS)
    commands: list[list[str]] = []
    monkeypatch.setattr("banger.commands.ssh.os.execvp", lambda _file, argv: commands.append(argv))
    return commands


@pytest.mark.parametrize(
    ("typed", "options", "remote"),
    [
        ([], [], []),
        (["ls", "-l"], [], ["ls", "-l"]),
        (["--", "-L", "8080:localhost:80", "-N"], ["-L", "8080:localhost:80", "-N"], []),
        (["--", "-A", "-p22", "-t", "top", "-d", "1"], ["-A", "-p22", "-t"], ["top", "-d", "1"]),
    ],
)
def test_ssh_gets_options_before_and_the_command_after_the_host(
    cli: Cli, executed: list[list[str]], typed: list[str], options: list[str], remote: list[str]
) -> None:
    assert cli("vm", "ssh", "web", *typed).code == 0
    (argv,) = executed
    place = argv.index("root@banger-0123456789ab")
    assert argv[place + 1 :] == remote
    assert argv[place - len(options) : place] == options


def test_command_behind_two_dashes_is_ours_to_remove() -> None:
    assert split_ssh_arguments(["-v", "--", "-x"]) == (["-v"], ["-x"])


def test_ssh_itself_understands_the_options() -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    command = ["ssh", "-G", *ssh_options(ACCESS, "banger ssh-proxy -- web"), "root@web"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    for line in (
        "proxycommand banger ssh-proxy -- web", "proxyusefdpass yes", "stricthostkeychecking true", "userknownhostsfile /data dir/kh",
        "identityfile /data dir/100%%/id", "identitiesonly yes",
    ):  # fmt: skip
        assert line in told


def test_ssh_to_a_vm_named_like_another_machine_of_the_user_takes_nothing_of_its_configuration(
    cli: Cli, executed: list[list[str]], tmp_path: Path
) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    config = tmp_path / "config"
    config.write_text("Host web\n  RemoteCommand tmux attach\n  ForwardAgent yes\n  LocalForward 8080 localhost:80\n")
    assert cli("vm", "ssh", "web").code == 0
    command = ["ssh", "-G", "-F", str(config), *executed[0][1:]]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    assert "forwardagent no" in told
    assert not [line for line in told if line.startswith(("remotecommand tmux", "localforward"))]


def test_missing_ssh_is_explained(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.on("GET", "/v1/vms/web/access", ACCESS)
    monkeypatch.setenv("PATH", "/nonexistent")
    ended = cli("vm", "ssh", "web")
    assert ended.code == 7
    assert "apt-get install openssh-client" in ended.err


def test_stopped_vm_is_the_daemons_error(cli: Cli, api: FakeApi) -> None:
    api.fail("GET", "/v1/vms/web/access", 409, kind="conflict", message='VM "web" is stopped, not running')
    assert cli("vm", "ssh", "web").code == 4
