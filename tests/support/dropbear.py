"""A real dropbear on a loopback port whose forced command stands in for a guest's, and a forward that can misbehave.

dropbear takes the login user's home and keys from ``/etc/passwd``. The server therefore runs in a mount namespace
with a passwd file of its own, and in a PID namespace that takes every command with it when it ends.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.core.models import GuestAccess
from banger.guest.hostkey import dropbear_key, public_key
from banger.guest.sshkeys import ensure_key
from tests.support.waiting import eventually

DROPBEAR = shutil.which("dropbear", path="/usr/sbin:/usr/bin:/sbin:/bin")

#: The login shell: it runs what the tests say, as the one who runs the server.
_ENTER = """#!/bin/sh
eval "set -- $2"
shift 2
exec "$@"
"""

#: Ends with this process, however that ends.
_NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "-m", "-p", "--fork")

#: Runs in the namespaces: $1 is the directory of the server's files, the rest is the server. What would note the logins
#: of terminal sessions (utmp, wtmp) is out of its reach.
_SET_UP = """
mount -t tmpfs none /run
mount -t tmpfs none /var/log
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shells" /etc/shells
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Guest:
    """A running server and how to reach it."""

    access: GuestAccess
    port: int


def why_dropbear_cannot_run() -> str:
    """The reason to skip, or an empty string."""
    if DROPBEAR is None:
        return "dropbear is not installed"
    if shutil.which("setpriv") is None or shutil.which("unshare") is None:
        return "util-linux is not installed"
    probe = subprocess.run([*_NAMESPACES, "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "needs root: mount and PID namespaces"


needs_dropbear = pytest.mark.skipif(bool(why_dropbear_cannot_run()), reason=why_dropbear_cannot_run())


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def dropbear(directory: Path, *, port: int = 0, window: int = 0) -> Iterator[Guest]:
    """Run a server; ``window`` is dropbear's receive window in bytes (0: its default). Keys are kept in ``directory``."""
    host_key = _host_key(directory / "host_key")
    home = directory / "home"
    (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    private_key = directory / "client" / "id_ed25519"
    (home / ".ssh" / "authorized_keys").write_text(ensure_key(private_key) + "\n")
    enter = directory / "enter"
    enter.write_text(_ENTER)
    enter.chmod(0o755)
    (directory / "passwd").write_text(f"root:x:0:0:root:{home}:{enter}\n")
    (directory / "shells").write_text(f"{enter}\n")
    port = port or free_port()
    server = [str(DROPBEAR), "-F", "-E", "-s", "-m", "-r", str(directory / "host_key"), "-p", f"127.0.0.1:{port}"]
    server += ["-P", "", *(["-W", str(window)] if window else [])]
    alive, held_while_alive = os.pipe()
    with (directory / "dropbear.log").open("ab") as log:
        process = subprocess.Popen(
            [*_NAMESPACES, "--kill-child", "sh", "-ec", _SET_UP, "sh", str(directory), *server],
            stdin=subprocess.DEVNULL,
            stderr=log,
            pass_fds=[held_while_alive],
        )
    os.close(held_while_alive)
    try:
        eventually(lambda: _listens(port), what="dropbear listens")
        yield Guest(GuestAccess(directory.name, host_key, str(private_key)), port)
    finally:
        process.kill()
        process.wait()
        os.read(alive, 1)  # returns when the last process of the namespace is gone
        os.close(alive)


def new_host_key_line() -> str:
    """The public line of a key that nobody holds."""
    return public_key(secrets.token_bytes(32))


def _host_key(path: Path) -> str:
    """Write dropbear's key file, from the seed beside it if there is one; returns the public line."""
    seed_file = path.with_suffix(".seed")
    if not seed_file.exists():
        seed_file.write_bytes(secrets.token_bytes(32))
    path.write_bytes(dropbear_key(seed_file.read_bytes()))
    path.chmod(0o600)
    return public_key(seed_file.read_bytes())


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
        return bool(probe.recv(1))
    return False
