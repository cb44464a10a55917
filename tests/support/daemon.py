"""Private installations of banger: a ``BANGER_HOME`` each, stopped and removed at the end with all that belongs to it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import PROJECT, Command, Result
from tests.support.leaks import SESSION_VARIABLE, all_pids, mentions, note_installation
from tests.support.waiting import eventually_empty

#: A user that owns nothing on any host, as root's tests become it.
NOBODY = 65534

#: Boots a VM of an image under a name, with options of `vm run`; the VM is gone after the block.
RunningVm = Callable[..., AbstractContextManager[str]]
#: What of the environment a command needs; everything else would make tests depend on who runs them.
_KEPT = (SESSION_VARIABLE, "PATH", "TMPDIR", "LANG", "SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy")
#: Development tools that a copy of the installed packages does without.
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyi", "mypy*", "ruff*", "pip*", "setuptools*", "hypothesis*")


class BangerHome:
    """One installation: its directory, its command, its daemon."""

    def __init__(self, path: Path, cli: Command) -> None:
        self.path = path
        self.cli = cli

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.path / "run" / "banger.sock"

    @property
    def data(self) -> Path:
        """The state directory."""
        return self.path / "data"

    def run(self, *args: str, **options: Any) -> Result:
        """Run ``banger args…``; see :meth:`Command.run`."""
        return self.cli.run(*args, **options)

    def json(self, *args: str, **options: Any) -> Any:
        """What ``banger args… --json`` prints."""
        noun_verb, rest = args[:2], args[2:]
        return self.cli.run(*noun_verb, "--json", *rest, **options).json()

    def guest(self, vm: str, script: str, **options: Any) -> Result:
        """Run a shell script in a VM."""
        return self.cli.run("vm", "exec", vm, "--", "sh", "-c", script, **options)

    def processes(self) -> list[int]:
        """All processes that belong to this installation: its daemon, its VMMs, their helpers."""
        return [pid for pid in all_pids() if pid != os.getpid() and mentions(pid, self.path)]

    def _all_processes(self) -> list[int]:
        """Also those that only say the installation's id: of its network, which may outlive all others."""
        mark = self.data / "installation-id"
        marked = mark.read_bytes().strip() if mark.is_file() else b""
        return [*self.processes(), *(pid for pid in all_pids() if marked and marked in _command(pid))]

    def vmms(self) -> list[int]:
        """The VMM processes of this installation."""
        return [pid for pid in self.processes() if b"qemu-system" in _command(pid)]

    def forwarder(self, vm_id: str) -> int:
        """The process that forwards a VM's published ports."""
        (pid,) = (pid for pid in all_pids() if re.search(rb"banger-ports-\w+-" + vm_id.encode(), _command(pid)))
        return pid

    def daemon_pid(self) -> int:
        """The running daemon's process id."""
        pid: int = self.json("daemon", "status")["pid"]
        return pid

    def kill_daemon(self) -> None:
        """Kill the daemon as a crash would, and wait until it is gone."""
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        assert not eventually_empty(lambda: [pid] if _command(pid) else [], 10.0)

    def leftovers(self) -> list[str]:
        """What failed or deleted work should not leave: staged files, partial downloads, directories without a row."""
        found = [path for place in ("staging", "trash") for path in (self.data / place).glob("*")]
        found += (self.data / "blobs").rglob("*.part")
        for noun, place in (("vm", "vms"), ("image", "images"), ("kernel", "kernels"), ("snapshot", "snapshots")):
            known = {item["id"] for item in self.json(noun, "list")}
            found += [path for path in (self.data / place).glob("*") if path.name not in known]
        return sorted(str(path.relative_to(self.path)) for path in found)

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of the daemon's log."""
        try:
            text = (self.data / "daemon.log").read_text(errors="replace")
        except OSError as error:
            return f"no daemon.log: {error}"
        return "\n".join(text.splitlines()[-lines:])

    def close(self) -> None:
        """Stop the daemon, end what still belongs to this installation, and remove its directory."""
        with suppress(AssertionError):
            self.cli.run("daemon", "stop", timeout_s=40)
        for pid in self._all_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = eventually_empty(self._all_processes, 10.0)
        note_installation(self.path.parent, self.data / "installation-id")
        shutil.rmtree(self.path)
        assert not left, f"processes of {self.path} cannot be killed: {left}"


@contextmanager
def banger_home(root: Path, uid: int | None = None, **settings: str) -> Iterator[BangerHome]:
    """A fresh installation below ``root``; ``uid`` makes it an ordinary user's. ``settings`` are extra environment.

    It makes no templates unless they say so: tests count what is on the host, and mean a boot when they start a VM.

    The directory's name is short: the paths of Unix sockets in it must stay under 108 bytes.
    """
    path = Path(tempfile.mkdtemp(prefix="h-", dir=root))
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    env |= {"HOME": str(path), "BANGER_HOME": str(path), "PYTHONPATH": str(PROJECT), "LC_ALL": "C.UTF-8"}
    env |= {"BANGER_RUN_TEMPLATES": "off", **settings}
    cli = Command(env)
    if uid is not None and uid != os.getuid():
        os.chown(path, uid, uid)
        python, packages = _readable_installation(root)
        cli = Command({**env, "PYTHONPATH": packages}, python, _as_user(uid), cwd=path)
    home = BangerHome(path, cli)
    try:
        yield home
    finally:
        home.close()


def with_tun(root: Path) -> tuple[str, ...]:
    """What to put before a command so that it finds a ``/dev/net/tun`` that everybody may open, as hosts have it."""
    node = root / "tun"
    try:
        os.mknod(node, stat.S_IFCHR, os.makedev(10, 200))
        node.chmod(0o666)
    except FileExistsError:
        pass
    except PermissionError:
        return ()
    return ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /dev/net/tun; exec "$@"', str(node))


def _as_user(uid: int) -> tuple[str, ...]:
    """What to put before a command so that it runs as ``uid``.

    ``setpriv`` itself still has root's right to pass every directory when it starts a program; ``env`` has not.
    """
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env")


def as_ordinary_user(root: Path, *arguments: str) -> list[str]:
    """The command that runs Python with our modules, those of the tests too, as an ordinary user."""
    python, packages = _readable_installation(root)
    return [*_as_user(NOBODY), f"PYTHONPATH={packages}:{PROJECT}", python, *arguments]


@cache
def _readable_installation(root: Path) -> tuple[str, str]:
    """An interpreter and a module path that an ordinary user can use, copying what only root can read."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for packages in (_installed_packages, _copied_packages):
        path = packages(root)
        for python in (sys.executable, f"/usr/bin/{version}"):
            if _works_for_nobody(python, path):
                return python, path
    pytest.skip(f"no {version} on this host that an ordinary user can run")


def _installed_packages(_root: Path) -> str:
    return f"{PROJECT}:{sysconfig.get_path('purelib')}"


def _copied_packages(root: Path) -> str:
    target = root / "packages"
    shutil.copytree(sysconfig.get_path("purelib"), target, ignore=_LEFT_OUT, symlinks=True)
    shutil.copytree(PROJECT / "banger", target / "banger", ignore=_LEFT_OUT, dirs_exist_ok=True)
    for path in (path for path in [target, *target.rglob("*")] if not path.is_symlink()):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return str(target)


def _works_for_nobody(python: str, packages: str) -> bool:
    check = subprocess.run(
        [*_as_user(NOBODY), python, "-c", "import banger.__main__, pysqlite3, starlette"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": packages},
        cwd="/",
        capture_output=True,
        check=False,
    )
    return check.returncode == 0


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
