"""The jail that Firecracker's own jailer makes, around a genuine Firecracker without a machine: that takes no KVM.

It is told by its API what a machine would be made of, and so opens all of it. With a machine in it, the contract of
VMMs is kept by it in the test host (tests/e2e/test_e2e_testhost.py).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import AGENT_SOCKET, Drive, TapNic, VmmConfig
from banger.core.ports import entering as inside
from banger.vmm import identity as processes
from banger.vmm.firecracker import failures, jail, launch
from banger.vmm.firecracker.binary import SETTING, Binary, inspect
from banger.vmm.firecracker.client import Api
from banger.vmm.firecracker.configuration import API_SOCKET, configuration
from banger.vmm.firecracker.metrics import metrics_file
from banger.vmm.starting import NotRunningError
from tests.support.firecracker import binaries, make_release
from tests.support.idle_firecracker import start_idle
from tests.support.intruder import intrude, open_secrets, status_of
from tests.support.machines import Rig
from tests.support.netns import why_no_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's daemon gives VMMs users of their own")


@dataclass(frozen=True)
class Cell:
    """A Firecracker in its jail, which has opened a base that it shares and a disk of its own."""

    config: VmmConfig
    identity: ProcessIdentity
    base: Path
    disk: Path

    @property
    def pid(self) -> int:
        return self.identity.pid

    def inside(self, place: str) -> Path:
        """What is at a place in its root directory."""
        return Path(f"/proc/{self.pid}/root", place)


@pytest.fixture(scope="module")
def binary() -> Binary:
    return inspect(binaries()[0], SETTING)


@pytest.fixture(scope="module")
def rig(session_root: Path) -> Iterator[Rig]:
    home = Path(tempfile.mkdtemp(prefix="vmm-", dir=session_root / "tmp"))
    rig = Rig.build("firecracker-jailed", home, session_root / "proofs")
    yield rig
    rig.close()


def configured(rig: Rig, name: str, **changes: object) -> VmmConfig:
    base, disk = rig.home / "base.img", rig.home / f"{name}.img"
    for path in (base, disk):
        path.write_bytes(bytes(1 << 20))
        path.chmod(0o600)
    drives = (Drive(base, "root", read_only=True), Drive(disk, "data", read_only=False))
    config = rig.config(name, **{"devices": drives, **changes})
    config.initrd.chmod(0o600)
    return config


def started(binary: Binary, config: VmmConfig) -> ProcessIdentity:
    """It answers, and has opened all that its machine would be made of."""
    identity = start_idle(binary, config, inside(config.devices))
    api = Api(launch.api_path(config.run_dir), 5.0)
    whole: dict[str, Any] = configuration(config, jail.places(config))
    for name in ("machine-config", "boot-source", "vsock", "entropy"):
        api.put(f"/{name}", whole[name])
    for drive in whole["drives"]:
        api.put(f"/drives/{drive['drive_id']}", drive)
    for card in whole["network-interfaces"]:
        api.put(f"/network-interfaces/{card['iface_id']}", card)
    return identity


def launched(rig: Rig, binary: Binary, name: str) -> Cell:
    config = configured(rig, name)
    identity = started(binary, config)
    jail.seal(config)
    return Cell(config, identity, rig.home / "base.img", rig.home / f"{name}.img")


@pytest.fixture(scope="module")
def cells(rig: Rig, binary: Binary) -> tuple[Cell, Cell]:
    """One that was taken over, and its neighbour."""
    return launched(rig, binary, "taken"), launched(rig, binary, "neighbour")


def test_vmm_is_a_user_of_its_own_without_groups_or_capabilities(cells: tuple[Cell, Cell]) -> None:
    for cell in cells:
        status = status_of(cell.pid)
        assert status["Uid"].split() == status["Gid"].split() == [str(cell.config.uid)] * 4
        assert status["Groups"].strip() == ""
        assert {status[f"Cap{one}"] for one in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
        assert int(status["CapBnd"], 16) & 1 << 12 == 0  # CAP_NET_ADMIN
        assert status["NoNewPrivs"] == "1"
        limits = Path(f"/proc/{cell.pid}/limits").read_text(encoding="utf-8")
        assert re.search(r"Max core file size\s+0\s+0\s", limits)
        assert re.search(r"Max open files\s+2048\s+2048\s", limits)
    assert cells[0].config.uid != cells[1].config.uid


def test_every_thread_of_the_vmm_is_behind_a_seccomp_filter(cells: tuple[Cell, Cell]) -> None:
    api = [
        entry
        for entry in Path(f"/proc/{cells[0].pid}/task").iterdir()
        if "fc_api" in (entry / "comm").read_text(encoding="utf-8")
    ]
    assert api
    assert all(re.search(r"Seccomp:\s+2", (one / "status").read_text(encoding="utf-8")) for one in api)


def test_vmm_has_namespaces_of_its_own_and_is_process_1_of_one(cells: tuple[Cell, Cell]) -> None:
    kinds = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
    for kind in kinds:
        seen = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in ("self", *(cell.pid for cell in cells))}
        assert len(seen) == 3, kind
    assert status_of(cells[0].pid)["NSpid"].split() == [str(cells[0].pid), "1"]


def test_whoever_takes_over_a_vmm_opens_calls_and_changes_nothing_of_the_hosts(
    rig: Rig, cells: tuple[Cell, Cell]
) -> None:
    taken, other = cells
    neighbours = [other.disk, other.config.console_log, other.config.vmm_log, other.config.initrd]
    neighbours += [other.config.run_dir / name for name in (API_SOCKET, AGENT_SOCKET)]
    neighbours.append(jail.shared_dir(other.config.run_dir) / API_SOCKET)
    hosts = [Path(one) for one in ("/etc/passwd", "/root", "/proc/1/environ", "/sys/kernel", "/dev/mem", "/usr")]
    own = [taken.disk, taken.config.console_log, taken.config.run_dir / API_SOCKET]
    with open_secrets(rig.home) as secrets:
        paths = [*secrets, *neighbours, *hosts, *own, jail._BASE]
        found = intrude(
            taken.pid, taken.config.uid, paths, [other.pid, os.getpid()], rig.home, ("/vm", "/drives", "/saving")
        )
    assert {path: outcomes for path, outcomes in found["paths"].items() if outcomes != ["ENOENT"] * 4} == {}
    assert found["home"] is None
    assert found["kill"] == ["ESRCH"] * 2
    assert set(found["devices"]) - {"userfaultfd"} == {"kvm", "net", "urandom"}
    seen = "dev drives firecracker firecracker.pid initrd kernel run saving vm vmm-metrics.log vmm.log"
    assert found["root"] == seen.split()
    assert found["mknod"] == "EPERM"
    assert found["write"] == ["EACCES"] * 3
    assert found["mount"] == -1
    assert found["links"] == ["lo"]
    assert processes.is_same(other.identity)


def test_disks_are_opened_as_they_may_be_and_the_base_can_be_written_by_nobody(cells: tuple[Cell, Cell]) -> None:
    for cell in cells:
        modes = {}
        for entry in Path(f"/proc/{cell.pid}/fd").iterdir():
            flags = re.search(
                r"flags:\s+(\d+)", Path(f"/proc/{cell.pid}/fdinfo/{entry.name}").read_text(encoding="utf-8")
            )
            assert flags is not None
            modes[entry.stat().st_ino] = int(flags[1], 8) & os.O_ACCMODE
        assert modes[cell.base.stat().st_ino] == os.O_RDONLY
        assert modes[cell.disk.stat().st_ino] == os.O_RDWR
        with pytest.raises(OSError, match="Read-only"):
            cell.inside("drives/root").open("r+b")


def test_sockets_answer_where_the_daemon_looks_and_cannot_be_replaced_by_the_vmm(cells: tuple[Cell, Cell]) -> None:
    cell = cells[0]
    shared = jail.shared_dir(cell.config.run_dir)
    assert (shared.stat().st_uid, stat.S_IMODE(shared.stat().st_mode)) == (0, 0o700)
    assert Api(launch.api_path(cell.config.run_dir), 5.0).get("/")["state"] == "Not started"
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(cell.config.run_dir / AGENT_SOCKET))


def test_vmm_whose_sockets_are_something_else_by_then_does_not_run(rig: Rig, binary: Binary) -> None:
    config = configured(rig, "hostile")
    identity = started(binary, config)
    shared = jail.shared_dir(config.run_dir)
    (shared / AGENT_SOCKET).unlink()
    (shared / AGENT_SOCKET).symlink_to("/run/docker.sock")
    with pytest.raises(NotRunningError):
        jail.seal(config)
    rig.processes.kill(identity)


def test_jail_is_gone_with_its_vmm_and_can_be_made_again(rig: Rig, binary: Binary) -> None:
    def mounts() -> list[str]:
        """Where a jail would make them; others of this host come and go."""
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.split()[1] == "/" or str(rig.home) in line or "jail" in line]

    before = mounts()
    for _ in range(2):
        cell = launched(rig, binary, "short-lived")
        assert mounts() == before
        assert rig.processes.find(cell.identity.marker) == cell.identity
        rig.processes.kill(cell.identity)
        assert processes.exit_status(cell.identity) == -9
        found = ["find", "/proc", "-maxdepth", "1", "-uid", str(cell.config.uid)]
        assert subprocess.run(found, capture_output=True, check=False).stdout == b""
    assert sorted(path.name for path in jail.shared_dir(cell.config.run_dir).iterdir()) == [API_SOCKET, AGENT_SOCKET]
    assert not jail._BASE.exists()


def test_vmm_that_fills_its_root_directory_fills_no_disk_and_not_the_hosts_memory(cells: tuple[Cell, Cell]) -> None:
    root = os.statvfs(f"/proc/{cells[0].pid}/root/")
    assert root.f_blocks * root.f_frsize < 8 << 20
    assert root.f_bavail > 0


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A network namespace that is not the host's."""
    if obstacle := why_no_namespace():
        pytest.skip(obstacle)
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield Path(f"/proc/{holder.pid}/ns/net")
        holder.kill()


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun")
def test_tap_is_opened_by_the_vmms_user_in_the_namespace_where_it_is(rig: Rig, binary: Binary, elsewhere: Path) -> None:
    entering = ("nsenter", f"--net={elsewhere}", "--")
    subprocess.run([*entering, "ip", "tuntap", "add", "bgj0", "mode", "tap", "user", "0"], check=True)
    nic = TapNic("bgj0", "06:00:0a:00:00:02", 0, entering)
    config = configured(rig, "wired")
    config = replace(config, devices=[*config.devices, nic])
    identity = started(binary, config)
    assert Path(f"/proc/{identity.pid}/ns/net").readlink() == elsewhere.readlink()
    shown = subprocess.run(
        [*entering, "ip", "-details", "link", "show", "bgj0"], capture_output=True, text=True, check=True
    ).stdout
    assert f"user {config.uid}" in shown
    rig.processes.kill(identity)
    lost = configured(rig, "lost")
    with pytest.raises(AssertionError, match='cannot find the tap "nosuchtap"'):
        started(binary, replace(lost, devices=[replace(nic, tap="nosuchtap")]))


def test_vmm_that_is_process_1_stands_still_and_goes_on_by_signals_from_outside(rig: Rig, binary: Binary) -> None:
    config = configured(rig, "stopped")
    identity = started(binary, config)
    assert processes.stop(identity, 5.0)
    assert processes.kill(identity, signal.SIGCONT)
    assert Api(launch.api_path(config.run_dir), 5.0).get("/")["state"] == "Not started"
    rig.processes.kill(identity)


def test_jailer_that_may_not_make_devices_is_heard_and_ends(rig: Rig, binary: Binary) -> None:
    config = configured(rig, "poor")
    with pytest.raises(AssertionError) as caught:
        start_idle(binary, config, ("setpriv", "--bounding-set", "-mknod", "--"))
    error = failures.explain(config, str(caught.value), Exception(), timed_out=False)
    assert "cannot be put into a jail" in error.message
    assert "via mknod inside the jail: Operation not permitted" in error.cause


def test_launch_whose_disk_is_gone_names_it(rig: Rig, binary: Binary) -> None:
    config = rig.config("gone", devices=(Drive(rig.home / "no such disk", "data", read_only=False),))
    for path in (config.vmm_log, metrics_file(config.vmm_log)):
        path.touch()
    with pytest.raises(BangerError) as caught:
        jail.prepare(config, {})
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert f"{rig.home}/no such disk: No such file or directory" in caught.value.cause


def test_cpu_template_that_is_a_file_of_roots_is_read_in_the_jail_all_the_same(rig: Rig, binary: Binary) -> None:
    template = rig.home / "template.json"
    template.write_text('{"cpuid_modifiers": []}', encoding="utf-8")
    template.chmod(0o600)
    config = configured(rig, "masked", options={"cpu_template": str(template)})
    identity = started(binary, config)
    cell = Cell(config, identity, rig.home, rig.home)
    place = configuration(config, jail.places(config))["cpu-config"]
    found = cell.inside(place.lstrip("/"))
    assert (found.read_text(encoding="utf-8"), found.stat().st_uid) == (
        template.read_text(encoding="utf-8"),
        config.uid,
    )
    assert template.stat().st_uid == 0
    rig.processes.kill(identity)


def test_jailer_of_another_version_is_refused_before_anything_is_started(
    rig: Rig, binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_release(tmp_path / "bin", "1.16.1", jailer="1.15.1")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    for asked in (rig.vmm.version, lambda: rig.vmm.launch(rig.config("odd"), lambda _: None)):
        with pytest.raises(BangerError) as caught:
            asked()  # type: ignore[operator]
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        assert "of version 1.15.1" in caught.value.cause
        assert "vmm.jail to off" in caught.value.hint
    assert "1.15.1" in rig.vmm.obstacle("")
    assert not jail.shared_dir(rig.config("odd").run_dir).exists()
