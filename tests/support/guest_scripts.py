"""The guest's scripts run on this host, each chrooted into a tree of its own: fast, and nothing of the host is touched.

There is no ``/proc`` or ``/sys`` of a kernel in the tree, and the applets that would change the machine (``mount`` and
its like) are stand-ins that note how they were called. A busybox shell may prefer its own applets to them: so whatever
runs there has namespaces of its own and no capability to change a machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.guest.agent_program import agent_program
from banger.guest.toolbox import APPLETS, scripts
from tests.support.waiting import eventually

BUSYBOX = shutil.which("busybox")

needs_chroot = pytest.mark.skipif(
    os.getuid() != 0 or not BUSYBOX or os.uname().machine != "x86_64",
    reason="needs root, an x86-64 and a static busybox",
)

_CONFINED = (
    "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child",
    "setpriv", "--bounding-set", "-all,+chown,+dac_override,+fowner,+setuid,+setgid,+sys_chroot,+sys_resource",
)  # fmt: skip
_MOUNT_PROC = 'mount -t proc -o ro proc "$0/proc" && exec chroot "$0" "$@"'
_STAND_INS = "chroot date hostname ifconfig insmod mount poweroff reboot route sleep sync umount unshare usleep".split()
_STAND_IN = '#!/bin/sh\necho "${0##*/} $* ${first_boot:--}" >>/calls\n'
_CONF = {
    "id": "cafe12345678", "hostname": "web", "init": "image", "epoch": "1", "root": "overlay",
    "home": "no", "address": "10.0.2.15", "netmask": "255.255.255.0", "gateway": "10.0.2.2", "nameserver": "10.0.2.3",
    "address6": "", "gateway6": "", "mtu": "",
}  # fmt: skip


@dataclass(frozen=True)
class Guest:
    """The image's root with the toolbox in ``run/banger``, or the toolbox's root with the image's in ``new``."""

    root: Path

    def path(self, place: str) -> Path:
        """A place in the tree, of which nothing is followed."""
        return self.root / place.lstrip("/")

    def write(self, place: str, content: str | bytes, mode: int = 0o644) -> None:
        """A file and the directories it lacks."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def link(self, place: str, target: str) -> None:
        """A symbolic link and the directories it lacks."""
        self.path(place).parent.mkdir(parents=True, exist_ok=True)
        self.path(place).symlink_to(target)

    def read(self, place: str) -> str:
        """A file's text, line ends as they are."""
        return self.path(place).read_bytes().decode()

    @property
    def calls(self) -> list[str]:
        """How the stand-ins were called."""
        calls = self.path("calls")
        return calls.read_text().splitlines() if calls.exists() else []

    def enter(self, command: str, account: str = "root") -> subprocess.CompletedProcess[str]:
        """What comes in through ssh."""
        return self._chroot("/run/banger/bin/enter", "-c", command, USER=account)

    def exec(self, *argv: str, user: str = "", **options: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the channel does."""
        words = [f"-u {user}"] if user else []
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in argv)
        return self.enter(" ".join(["banger-exec", *words, *options.values(), "--", quoted]))

    def start_ssh(self) -> subprocess.CompletedProcess[str]:
        """What the agent runs when somebody wants the ssh server, which is a stand-in."""
        return self._chroot("/run/banger/bin/ssh-server", "127.0.0.1:2222")

    def run(self, script: str) -> str:
        """Run a shell script that sees processes, its own and those that it starts; what it prints."""
        self.write("script", f"set -e\n{script}")
        mounted = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _MOUNT_PROC, self.root]
        done = subprocess.run([*mounted, "/bin/sh", "/script"], capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, *, first: bool = True, **settings: str) -> str:
        """Boot from where the image's root is in place to where an init takes over; what the console shows."""
        self.write("run/banger/etc/banger.conf", _conf(settings))
        self.write("note", "" if first else "written\n")
        opened = ["sh", "-c", 'exec 9>>"$0"; exec chroot "$@"', self.path("note"), self.root, "/run/banger/bin/start"]
        words = [*_CONFINED, *opened, "yes" if first else "no", ""]
        console = self.root.with_suffix(".console")
        with console.open("wb") as output, subprocess.Popen(words, stdout=output, stderr=output) as process:
            eventually(lambda: process.poll() is not None or self._is_up(console), what="the init runs")
            process.kill()
        shown = console.read_text()
        assert "banger: ready" in shown, shown
        return shown

    def init(self, **settings: str) -> str:
        """Boot from the first program to where the image's root is entered; whether it takes this for a first boot."""
        self.write("etc/banger.conf", _conf(settings) + "set -a\n")  # so that stand-ins see the script's variables
        self.path("calls").unlink(missing_ok=True)
        done = self._chroot("/init")
        assert "banger: failed" not in done.stdout, done.stdout
        assert self.calls[-1].startswith("mount --move . / "), done.stdout + done.stderr
        return self.calls[-1].rpartition(" ")[2]

    @property
    def mounted(self) -> list[str]:
        """Where init has mounted something."""
        return [call.split()[-2] for call in self.calls if call.startswith("mount ")]

    def _is_up(self, console: Path) -> bool:
        return "banger: ready" in console.read_text(encoding="utf-8") and bool(self.read("note"))

    def _chroot(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words = [*_CONFINED, "chroot", self.root, *argv]
        env = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=env)


def image_root(root: Path) -> Guest:
    """An image with a shell, an init that does nothing, and the toolbox."""
    root.mkdir()
    guest = Guest(root)
    _fill(guest, "bin", stand_ins=False)
    _fill(guest, "run/banger/bin", stand_ins=True)
    for place, content in scripts().items():
        guest.write(f"run/banger/{place}", content, 0o755)
    guest.write("sbin/init", "#!/bin/sh\nexec sleep 60\n", 0o755)
    guest.write("proc/uptime", "1.23 4.56\n")
    guest.write("dev/null", "")
    for place in ("etc/environment", "etc/directories"):
        guest.write(f"run/banger/{place}", "")
    guest.write("run/banger/etc/passwd", "root:x:0:0::/home:/run/banger/bin/enter\n")
    for place in ("dev", "etc", "run/banger/links"):
        guest.path(place).mkdir(parents=True, exist_ok=True)
    return guest


def toolbox_root(root: Path) -> Guest:
    """The initrd's root with the disks that init looks for; what it mounts on ``new`` is there already."""
    root.mkdir()
    guest = Guest(root)
    _fill(guest, "bin", stand_ins=True)
    guest.write("init", scripts()["init"], 0o755)
    guest.write("proc/uptime", "1.23 4.56\n")
    guest.write("modules/order", "")
    for index, serial in enumerate(("root", "data")):
        guest.write(f"sys/block/vd{'ab'[index]}/serial", serial)
    for place in ("base", "data", "dev", "new"):
        guest.path(place).mkdir(parents=True, exist_ok=True)
    return guest


def _fill(guest: Guest, directory: str, *, stand_ins: bool) -> None:
    place = guest.path(directory)
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(BUSYBOX), place / "busybox")
    for applet in {*APPLETS, "sh", "id", "echo", "cat", "pwd", "env", "sleep", "ps", "grep", "setsid", "ls", "true"}:
        if stand_ins and applet in _STAND_INS:
            guest.write(f"{directory}/{applet}", _STAND_IN.replace("/bin/sh", f"/{directory}/sh"), 0o755)
        else:
            (place / applet).symlink_to("busybox")
    if stand_ins:
        guest.write(f"{directory}/become", agent_program(), 0o755)


def _conf(settings: dict[str, str]) -> str:
    return "".join(f"{key}='{value}'\n" for key, value in {**_CONF, **settings}.items())
