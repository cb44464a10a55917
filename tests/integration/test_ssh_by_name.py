"""The user's own ssh, led to a server by `banger ssh-config` and its proxy, with the daemon played by a fake."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.dropbear import Guest, dropbear, needs_dropbear, new_host_key_line
from tests.support.fake_api import FakeApi
from tests.support.fake_ssh import carried_to

pytest_plugins = ("tests.support.cli_fixtures",)
pytestmark = [
    needs_dropbear,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed"),
]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with dropbear(tmp_path_factory.mktemp("guest")) as running:
        yield running


@pytest.fixture
def config(guest: Guest, home: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's configuration with ours in it, in an account that would get everything wrong on its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    config.write_text("Host *\n    User nobody\n    Port 1\n    ProxyJump nowhere\n    StrictHostKeyChecking no\n")
    assert cli("ssh-config", "--install").code == 0
    shutil.copy(guest.access.private_key_path, home / "data" / "ssh" / "id_ed25519")
    return config


def serve_access(api: FakeApi, guest: Guest, host_key: str) -> None:
    api.on("GET", "/v1/vms/web/access", {"user": "root", "host_key": host_key, "host_key_alias": "banger-1"})
    api.on("POST", "/v1/vms/web/ssh", talk=carried_to("127.0.0.1", guest.port))


def ssh(config: Path, host: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", host, *command]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("host", ["web.vm", "root@web.vm"])
def test_ssh_by_name_logs_in_and_asks_nothing(api: FakeApi, guest: Guest, config: Path, host: str) -> None:
    serve_access(api, guest, guest.access.host_key)
    done = ssh(config, host, "banger-exec -- echo hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_ssh_by_name_carries_data_whole(api: FakeApi, guest: Guest, config: Path) -> None:
    serve_access(api, guest, guest.access.host_key)
    done = ssh(config, "web.vm", "banger-exec -- head -c 20000000 /dev/zero")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 20_000_000, b"")


def test_ssh_by_name_accepts_no_other_host_key(api: FakeApi, guest: Guest, config: Path) -> None:
    serve_access(api, guest, new_host_key_line())
    done = ssh(config, "web.vm", "banger-exec -- echo hello")
    assert (done.returncode, done.stdout) == (255, b"")
    assert b"Host key verification failed" in done.stderr


def test_ssh_by_name_follows_a_vm_that_was_made_anew(api: FakeApi, guest: Guest, config: Path) -> None:
    serve_access(api, guest, new_host_key_line())
    assert ssh(config, "web.vm", "banger-exec -- echo hello").returncode == 255
    serve_access(api, guest, guest.access.host_key)
    assert ssh(config, "web.vm", "banger-exec -- echo hello").stdout == b"hello\n"


def test_ssh_by_name_shows_why_a_vm_cannot_be_reached(api: FakeApi, config: Path) -> None:
    message = 'VM "web" is stopped, not running'
    api.fail("GET", "/v1/vms/web/access", 409, kind="conflict", message=message, hint="banger vm start web")
    done = ssh(config, "web.vm", "true")
    assert done.returncode == 255
    assert f"error: {message}\n  hint: banger vm start web\n".encode() in done.stderr
