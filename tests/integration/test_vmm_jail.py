"""What somebody finds who has taken over a VMM of root's daemon: its own files, and nothing else.

The same attempts are made from within the namespaces of a running QEMU, as its user, and by a program that is started in
QEMU's place.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import AGENT_SOCKET, Drive, VmmConfig
from banger.launch import Confinement, ForJailer, Put
from banger.launch.jail import helper, jailed, obstacle
from banger.vmm.qemu import jail, launch
from banger.vmm.qemu.binary import find_binary
from tests.support.intruder import intrude, open_secrets, status_of
from tests.support.machines import USERS, Rig, has_qemu

pytestmark = [
    pytest.mark.boot,
    pytest.mark.skipif(not has_qemu(), reason="qemu-system-x86_64 is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon gives VMMs users of their own"),
]


@dataclass(frozen=True)
class Cell:
    """A running QEMU in its jail, on a base that it shares and a disk of its own."""

    config: VmmConfig
    identity: ProcessIdentity
    base: Path
    disk: Path

    def status(self) -> dict[str, str]:
        return status_of(self.identity.pid)

    def intrude(self, paths: list[Path], others: list[int], home: Path) -> dict[str, Any]:
        return intrude(self.identity.pid, self.config.uid, paths, others, home)


@pytest.fixture(scope="module")
def rig(session_root: Path) -> Iterator[Rig]:
    home = Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp"))
    rig = Rig.build("qemu-jailed", home, session_root / "proofs")
    yield rig
    rig.close()


def launched(rig: Rig, name: str) -> Cell:
    base, disk = rig.home / "base.img", rig.home / f"{name}.img"
    for path in (base, disk):
        path.write_bytes(bytes(1 << 20))
        path.chmod(0o600)
    drives = (Drive(base, "root", read_only=True), Drive(disk, "data", read_only=False))
    config = rig.config(name, devices=drives)
    return Cell(config, rig.vmm.launch(config, lambda _: None), base, disk)


@pytest.fixture(scope="module")
def cells(rig: Rig) -> tuple[Cell, Cell]:
    """A machine that was taken over, and its neighbour."""
    return launched(rig, "taken"), launched(rig, "neighbour")


@pytest.fixture(scope="module")
def secrets(rig: Rig) -> Iterator[list[Path]]:
    with open_secrets(rig.home) as found:
        yield found


def test_vmm_is_a_user_of_its_own_without_groups_or_capabilities(cells: tuple[Cell, Cell]) -> None:
    for cell in cells:
        status = cell.status()
        assert status["Uid"].split() == status["Gid"].split() == [str(cell.config.uid)] * 4
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{one}"] for one in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2" or not find_binary().has_sandbox
        limits = Path(f"/proc/{cell.identity.pid}/limits").read_text(encoding="utf-8")
        assert re.search(r"Max core file size\s+0\s+0\s", limits)
    assert cells[0].config.uid != cells[1].config.uid


def test_whoever_takes_over_a_vmm_opens_calls_and_changes_nothing_of_the_hosts(
    rig: Rig, cells: tuple[Cell, Cell], secrets: list[Path]
) -> None:
    taken, other = cells
    neighbours = [other.disk, other.config.console_log, other.config.initrd, other.config.run_dir / AGENT_SOCKET]
    neighbours.append(launch.qmp_path(other.config.run_dir))
    hosts = [
        Path(one)
        for one in ("/etc/shadow", "/etc/passwd", "/root", "/home", "/proc/1/environ", "/sys/kernel", "/dev/mem")
    ]
    own = [taken.disk, taken.config.console_log, launch.qmp_path(taken.config.run_dir)]
    found = taken.intrude([*secrets, *neighbours, *hosts, *own], [other.identity.pid, os.getpid(), 1], rig.home)
    paths: dict[str, list[str]] = found["paths"]
    assert {path: outcomes for path, outcomes in paths.items() if outcomes != ["ENOENT"] * 4} == {}
    assert found["home"] == ["taken"]  # where its kernel and initrd are
    assert found["kill"] == ["EPERM"] * 3
    assert found["devices"] == ["null", "urandom"]
    assert set(found["root"]) <= {"dev", "etc", "lib", "lib64", "usr", rig.home.parts[1]}
    assert found["mknod"] in ("EPERM", "EROFS")
    assert set(found["write"]) <= {"EROFS", "EACCES"}
    assert found["mount"] == -1
    assert found["links"] == ["lo"]
    os.kill(other.identity.pid, 0)


def test_base_that_machines_share_cannot_be_written_by_any(cells: tuple[Cell, Cell]) -> None:
    for cell in cells:
        pid = cell.identity.pid
        modes = {}
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            flags = re.search(r"flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text(encoding="utf-8"))
            assert flags is not None
            modes.setdefault(str(entry.readlink()), set()).add(int(flags[1], 8) & os.O_ACCMODE)
        assert modes[str(cell.base)] == {os.O_RDONLY}
        assert modes[str(cell.disk)] == {os.O_RDWR}
        assert modes[str(cell.config.console_log)] == {os.O_WRONLY}
        others = {str(path) for one in cells if one is not cell for path in (one.disk, one.config.console_log)}
        assert not others & set(modes)


def test_files_of_a_machine_stay_the_daemons(cells: tuple[Cell, Cell]) -> None:
    cell = cells[0]
    for path in (cell.disk, cell.base, cell.config.console_log, launch.qmp_path(cell.config.run_dir)):
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o600), path
    assert cell.config.initrd.stat().st_uid == cell.config.uid  # which QEMU opens by itself


def test_jail_is_gone_with_its_vmm(rig: Rig) -> None:
    def mounts() -> list[str]:
        """Where a jail would make them; others of this host come and go."""
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.split()[1] == "/" or str(rig.home) in line]

    before = mounts()
    cell = launched(rig, "short-lived")
    assert mounts() == before
    rig.processes.kill(cell.identity)
    found = subprocess.run(
        ["find", "/proc", "-maxdepth", "1", "-uid", str(cell.config.uid)], capture_output=True, check=False
    )
    assert found.stdout == b""


def test_program_in_the_vmms_place_has_what_was_handed_over_and_nothing_else_of_ours(rig: Rig) -> None:
    """The very jail of a QEMU with a shell in it, which QEMU's own does not have, started by a careless parent."""
    config = rig.config("probe")
    given = jail.confinement(config, find_binary(), jail.handed(config))
    assert not any(path.name in ("bin", "sbin", "usr", "etc") for path in given.visible)
    busybox = Path(shutil.which("busybox") or pytest.skip("needs a static busybox"))
    leaked = os.open("/etc/shadow", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        look = "n=3; while [ $n -lt 200 ]; do (: <&$n) 2>/dev/null && echo $n; n=$((n+1)); done; hostname; id -u; ulimit -c; umask"
        words = jailed(replace(given, visible=[*given.visible, busybox]), [str(busybox), "sh", "-c", look])
        jail.give(config)
        done = subprocess.run(words, capture_output=True, text=True, close_fds=False, check=True)
    finally:
        os.close(leaked)
    numbers = [str(file.number) for file in given.files] + [str(number) for number, _ in given.sockets]
    assert done.stdout.split() == [*sorted(numbers, key=int), "vm", str(config.uid), "0", "0077"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--open", "10", "read", "/nonexistent"], 'cannot open "/nonexistent": No such file or directory'),
        (["--listen", "10", "/nonexistent/s"], 'cannot listen at "/nonexistent/s": No such file or directory'),
        (["--listen", "10", "/" + "x" * 200], "ile name too long"),
        (["--tap", "10", "nosuchtap"], "nosuchtap"),
        (["--tap", "10", "a-name-that-is-too-long"], "no name of a tap"),
        (["--root", "--visible", "/nonexistent"], 'cannot see "/nonexistent": No such file or directory'),
        (["--root", "--device", "/etc/passwd"], 'no character device: "/etc/passwd"'),
        (["--root", "--visible", "usr"], 'not an absolute path: "usr"'),
        (["--enter", "/etc/passwd"], 'cannot enter "/etc/passwd": Invalid argument'),
        (["--cgroup", "/nonexistent"], 'cannot write "/nonexistent"'),
        (["--user", "0", "1"], 'that is root: "0"'),
        (["--user", "1", "0"], "that is root"),
        (["--user", "-1", "5"], 'not a number in range: "-1"'),
        (["--user", "4294967295", "5"], "not a number in range"),
        (["--user", "5"], "not a number in range"),
        (["--nonsense"], 'no such option: "--nonsense"'),
        (["--open", "10", "rw", "/"], 'no such mode: "rw"'),
        (["--put", "append", "/a", "/b"], 'no such mode: "append"'),
        (["--put", "read", "a", "/b"], 'not an absolute path: "a"'),
        (["--put", "read", "/a", "b"], 'not an absolute path: "b"'),
        (["--root", "--put", "read", "/nonexistent", "/b"], 'cannot see "/nonexistent": No such file or directory'),
        (["--root", "--scratch", "s", "4096"], 'not an absolute path: "s"'),
        (["--root", "--scratch", "/s", "-1"], 'not a number in range: "-1"'),
        (["--lend-tap", "nosuchtap"], "nosuchtap"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_runs(words: list[str], told: str) -> None:
    done = subprocess.run([*helper(), *words, "--", "/bin/echo", "ran"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("banger-jail: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_unix_sockets_without_a_path_can_be_called_by_nobody_in_a_jail() -> None:
    """Also where the network is the host's, in which they have no directory to hide in."""
    if _landlock_version() < 6:
        pytest.skip("needs Linux 6.12 with Landlock")
    name = f"\0banger-test-{os.getpid()}"
    call = "import socket, sys; socket.socket(socket.AF_UNIX).connect(chr(0) + sys.argv[1])"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        words = [sys.executable, "-I", "-c", call, name[1:]]
        outside = subprocess.run(words, capture_output=True, text=True, check=False)
        inside = subprocess.run([*helper(), "--", *words], capture_output=True, text=True, check=False)
    assert outside.returncode == 0, outside.stderr
    assert "PermissionError" in inside.stderr


def _landlock_version() -> int:
    """landlock_create_ruleset(2), asked for nothing else."""
    return ctypes.CDLL(None).syscall(444, None, 0, 1)  # type: ignore[no-any-return]


def test_jail_in_a_chroot_is_refused_before_anything_is_mounted(tmp_path: Path) -> None:
    """What is no mount cannot be taken out of the host's propagation: a mount in it might be seen outside."""
    *python, start, package = helper()
    into = f"import os; os.chroot({str(tmp_path)!r}); os.chdir('/'); main(sys.argv[2:])"
    words = [*python, start.replace("main(sys.argv[2:])", into), package, "--root", "--", "/busybox"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (125, 'banger-jail: cannot detach from the host "/": Invalid argument\n')


def test_obstacle_to_a_jail_is_found_by_making_one() -> None:
    assert obstacle(2_000_000_000) == ""
    without = "import sys; from banger.launch.jail import obstacle; print(obstacle(2_000_000_000))"
    words = ["setpriv", "--bounding-set", "-sys_admin", sys.executable, "-c", without]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert 'cannot make "' in done.stdout
    assert "Operation not permitted" in done.stdout


def test_launch_whose_disk_is_gone_names_it_and_leaves_nothing(rig: Rig) -> None:
    config = rig.config("gone", devices=(Drive(rig.home / "no such disk", "data", read_only=False),))
    with pytest.raises(BangerError) as caught:
        rig.vmm.launch(config, lambda _: None)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert f'"{rig.home}/no such disk": No such file or directory' in caught.value.cause
    assert rig.processes.find(vmm_marker(config.vm_id)) is None


def test_launch_on_a_file_system_that_knows_no_users_says_how_to_do_without(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path, *_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(os, "chown", refuses)
    config = rig.config("userless")
    with pytest.raises(BangerError) as caught:
        rig.vmm.launch(config, lambda _: None)
    assert "initrd: Operation not permitted" in caught.value.cause
    assert "vmm.jail" in caught.value.hint


def test_block_device_that_may_be_read_cannot_be_made_writable_by_the_vmms_user(tmp_path: Path) -> None:
    busybox = Path(shutil.which("busybox") or pytest.skip("needs a static busybox"))
    os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    (tmp_path / "link").symlink_to("disk")  # as in /dev/mapper
    puts = [Put("read", tmp_path / "link", Path("/s/base")), Put("write", tmp_path / "link", Path("/s/data"))]
    given = Confinement(visible=[busybox], uid=USERS[0], jailer=ForJailer(Path("/s"), 1 << 16, puts))
    words = [word for word in jailed(given, [str(busybox), "sh", "-c"]) if word != "--jailer"]
    look = "$0 stat -c '%u %a %t:%T' /s/base /s/data; $0 chmod 600 /s/base"
    done = subprocess.run([*words, look, str(busybox)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["0 444 7:0", f"{USERS[0]} 600 7:0"]
    assert "Operation not permitted" in done.stderr


def test_program_that_becomes_a_vmm_ignores_no_signal(tmp_path: Path) -> None:
    words = [
        *helper(),
        "--open",
        "10",
        "append",
        str(tmp_path / "log"),
        "--",
        "/bin/grep",
        "SigIgn",
        "/proc/self/status",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    ignored = int(done.stdout.split()[1], 16)
    assert not [one for one in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << (one - 1)]
