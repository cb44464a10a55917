"""The user's own ssh, with the options and the file that banger gives it, against a real server."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.commands.ssh import ssh_options
from banger.core.models import GuestAccess
from banger.guest.known_hosts import host_key_alias, known_hosts_line
from tests.support.dropbear import Guest, dropbear, needs_dropbear, new_host_key_line

pytestmark = [
    needs_dropbear,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed"),
]


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with dropbear(tmp_path_factory.mktemp("guest")) as running:
        yield running


#: Passes a connection to the port on, as `banger ssh-proxy` does.
PROXY = (
    "import socket, sys; made = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
    "socket.send_fds(socket.socket(fileno=1), [b'x'], [made.fileno()])"
)


def ssh(guest: Guest, directory: Path, access: GuestAccess | None = None) -> subprocess.CompletedProcess[bytes]:
    access = access or guest.access
    directory.mkdir()
    key = directory / "the key"
    shutil.copy(access.private_key_path, key)
    known_hosts = directory / "known 100%h"
    known_hosts.write_text(known_hosts_line(access))
    proxy = shlex.join([sys.executable, "-c", PROXY, str(guest.port)])
    known = {
        "private_key_path": str(key), "known_hosts_path": str(known_hosts),
        "host_key_alias": host_key_alias(access.vm_id),
    }  # fmt: skip
    command = ["ssh", "-F", "none", *ssh_options(known, proxy), "-o", "BatchMode=yes", f"{access.user}@web"]
    command.append("banger-exec -- echo hello")
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)


def test_ssh_with_bangers_options_logs_in(guest: Guest, tmp_path: Path) -> None:
    done = ssh(guest, tmp_path / 'odd "name"')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_ssh_with_bangers_options_refuses_another_host_key(guest: Guest, tmp_path: Path) -> None:
    done = ssh(guest, tmp_path / "files", replace(guest.access, host_key=new_host_key_line()))
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr
