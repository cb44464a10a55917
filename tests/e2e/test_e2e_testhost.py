"""What this machine may lack, for real: device-mapper, KVM, systemd and cgroups, in a machine that banger boots.

The tests share that machine, the daemon that its systemd runs and a VM that runs in there on real KVM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Result
from tests.support.crash_points import points_of
from tests.support.daemon import BangerHome
from tests.support.images import busybox_rootfs
from tests.support.soak import IS_SOAK
from tests.support.testhost import BANGER, PYTHON, HostInside
from tests.support.testhost_daemon import (
    PATIENCE_S,
    UNIT,
    doctor_checks,
    known_objects,
    restart,
    unit_facts,
    vm_facts,
    vm_units,
    wait_restarted,
)
from tests.support.testhost_firecracker import check_forks, check_jailed
from tests.support.testhost_world import LISTENING, check_network, make_world
from tests.support.waiting import eventually

pytestmark = [pytest.mark.boot, pytest.mark.slow, pytest.mark.timeout(1200 if IS_SOAK else 480)]
a_long_one = pytest.mark.skipif(not IS_SOAK, reason="a long one: make soak")

UNIT_FILE = f"/etc/systemd/system/{UNIT}"
VM = "inner"
#: A VM on Firecracker, and the tests of its contract that `make test` has time for.
LEAN = "lean"
LEAN_SUITE = "firecracker and not fake"
LEAN_SHORT = (
    "jailed and (adopted or listening or stands_still or repeated or same_directory or processor_time"
    " or no_kernel or floods or counted or stands_still_as or never_change)"
)
#: One whose supervisor dies, and the points that it does not come by.
CRASHED = "crashed"
NOT_WITHOUT_NETWORK = ("vm.start:kvm-given-up", "namespace.", "tap.", "ports.")
#: An ordinary user in there, who may use KVM, and the home of his installation.
TESTER, TESTERS_HOME = 1000, "/home/tester"
#: Seconds that the suites may take in there.
SUITES_S = 1000.0 if IS_SOAK else 400.0
#: Is there if the daemon runs with settings that are not in its file any more.
STALE = "/run/banger-test-stale"
MODULES = "/srv/modules"
#: What a guest needs to come up, of a tree of ninety megabytes.
NEEDED_MODULES = " ".join(
    f"kernel/{place}"
    for place in "drivers/virtio drivers/block drivers/char drivers/net net/core net/vmw_vsock fs/overlayfs".split()
)
#: Seconds without a sign of life; the unit's own patience would make a long test. On a busy host, a daemon that lives
#: in an emulated machine was not heard of for ten.
WATCHDOG_S = 45

#: Suites that need what the test host has: which of their tests need it, and what `make test` has time for.
SUITES = {
    "test_launch_contract.py": (
        "test_launch_contract and (cgroup or systemd)",
        "limits_are or memory or arguments or released or namespace or (outcome and 7)",
    ),
    "test_vmm_contract.py": ("qemu-systemd", "listening or adopted"),
    "test_storage_contract.py": (
        "test_storage_contract and dm",
        "overflows or what_is_written or detach_leaves or (anywhere and (3 or 7))",
    ),
    "test_storage_generations.py": ("test_storage_generations and dm", "never_changes"),
}


@pytest.fixture
def installed(inside: HostInside) -> HostInside:
    """The test host with the daemon installed in its systemd; KVM is there."""
    if unit_facts(inside)["ActiveState"] != "active":
        drop_in = f"{UNIT_FILE}.d"
        inside.shell(
            f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec={WATCHDOG_S}\\nTimeoutStartSec=600\\n' > {drop_in}/test.conf"
        ).ok()
        inside.shell("modprobe kvm-amd || modprobe kvm-intel").ok()
        installed = inside.banger("daemon", "install", "--system")
        assert installed.code == 0, f"{installed}\n{inside.log_tail()}"
    return inside


@pytest.fixture
def service(installed: HostInside) -> HostInside:
    """The same, and the daemon has read its settings as they are now."""
    if installed.run("test", "-e", STALE).code == 0:
        restart(installed)
        installed.run("rm", STALE).ok()
    return installed


#: What ``banger doctor`` says, by name.
Checks = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def asked_once() -> Checks:
    return {}


@pytest.fixture
def checks(service: HostInside, asked_once: Checks) -> Checks:
    """What ``banger doctor`` told the first who asked, by name: it takes long in there."""
    asked_once.update(asked_once or doctor_checks(service))
    return asked_once


@pytest.fixture
def inner(service: HostInside, home: BangerHome, tmp_path: Path) -> str:
    """Name of a VM that runs in the test host."""
    known = [vm for vm in known_objects(service, "vm") if vm["name"] == VM]
    if not known:
        _bring_kernel_and_image(service, home, tmp_path)
        service.ask("vm", "run", "--detach", "--name", VM, "--vmm", "qemu", "--kernel", VM, "--memory", "256M", VM).ok()
    elif known[0]["state"] != "running":
        service.ask("vm", "start", VM).ok()
    return VM


@pytest.fixture
def firecracker(inside: HostInside, real_firecracker: tuple[Path, Path]) -> HostInside:
    """The test host with a genuine Firecracker and KVM."""
    if inside.run("test", "-x", "/usr/local/bin/firecracker").code:
        inside.shell("modprobe kvm-amd || modprobe kvm-intel").ok()
        for program in real_firecracker:
            inside.put(program, f"/usr/local/bin/{program.name}")
    return inside


@pytest.fixture
def world(inside: HostInside) -> HostInside:
    """The test host, and a world beyond it."""
    make_world(inside)
    return inside


@pytest.fixture
def tester(inside: HostInside) -> Callable[..., Result]:
    """Runs a command in the test host as an ordinary user, of the group ``kvm``."""
    inside.shell(f"id tester 2>/dev/null || useradd --create-home --uid {TESTER} --groups kvm tester").ok()
    user = ("setpriv", f"--reuid={TESTER}", f"--regid={TESTER}", "--init-groups", "env", "-C", TESTERS_HOME)
    return lambda *argv: inside.run(*user, f"HOME={TESTERS_HOME}", f"BANGER_HOME={TESTERS_HOME}/b", *argv)


@pytest.fixture
def sessions(service: HostInside) -> Iterator[HostInside]:
    """The same, but VMs are started in sessions of their own."""
    settings = '[vmm]\\nlauncher = "session"\\n'
    service.shell(f"mkdir -p /etc/banger && printf '{settings}' > /etc/banger/config.toml && touch {STALE}").ok()
    restart(service)
    yield service
    service.run("rm", "/etc/banger/config.toml").ok()


def test_device_mapper_can_make_snapshots(inside: HostInside) -> None:
    inside.shell("modprobe dm-snapshot && modprobe loop").ok()
    assert "snapshot " in inside.run("dmsetup", "targets").ok().text


def test_suites_that_need_such_a_host_pass_in_it(inside: HostInside) -> None:
    inside.shell("modprobe kvm-amd || modprobe kvm-intel; modprobe dm-snapshot; modprobe loop").ok()
    chosen = " or ".join(f"({those})" if IS_SOAK else f"({those} and ({short}))" for those, short in SUITES.values())
    ran = inside.pytest("-rs", "-k", chosen, *(f"tests/contract/{name}" for name in SUITES), timeout_s=SUITES_S)
    assert ran.code == 0, str(ran)
    assert "passed" in ran.text
    assert "SKIPPED" not in ran.text, ran.text


def test_contract_of_vmms_is_kept_by_firecracker(firecracker: HostInside) -> None:
    chosen = LEAN_SUITE if IS_SOAK else f"{LEAN_SUITE} and ({LEAN_SHORT})"
    suites = [f"tests/contract/{one}.py" for one in ("test_vmm_contract", "test_vmm_saving")]
    ran = firecracker.pytest("-rs", "-k", chosen, *suites, timeout_s=SUITES_S)
    assert ran.code == 0, str(ran)
    assert "SKIPPED" not in ran.text, ran.text


@pytest.mark.timeout(1200 if IS_SOAK else 720)
@pytest.mark.usefixtures("firecracker", "world")
def test_vm_on_firecracker_is_one_like_any_other(service: HostInside, home: BangerHome, tmp_path: Path) -> None:
    """From its boot to its end; to another one in the long form. An emulated CPU that emulates virtualisation is slow."""
    _bring_kernel_and_image(service, home, tmp_path)
    _run_lean(service.ask, "tap", 8080)
    shown = _vm(service, LEAN)
    assert (shown["vmm"], shown["accelerator"], shown["vmm_version"]) == ("firecracker", "kvm", "1.12.1")
    user = check_jailed(service, shown["pid"])
    assert service.ask("vm", "exec", LEAN, "--", "uname", "-n").ok().text == f"{LEAN}\n"
    check_network(service, service.ask, LEAN, 8080)
    (tmp_path / "sent").write_bytes(bytes(range(256)))
    service.ask("vm", "cp", str(tmp_path / "sent"), f"{LEAN}:/tmp/sent").ok()
    service.ask("vm", "cp", f"{LEAN}:/tmp/sent", str(tmp_path / "back")).ok()
    assert (tmp_path / "back").read_bytes() == bytes(range(256))

    check_forks(service, LEAN)
    service.ask("vm", "pause", LEAN).ok()
    service.ask("vm", "resume", LEAN).ok()
    daemon = unit_facts(service)["MainPID"]
    service.run("kill", "-KILL", daemon).ok()
    wait_restarted(service, daemon)
    _check_lives_on(service, shown["pid"], LEAN)
    service.ask("vm", "stop", LEAN).ok()
    assert _vm(service, LEAN)["exit_reason"] == "requested"

    if IS_SOAK:
        service.ask("vm", "start", LEAN).ok()
        service.ask("vm", "exec", LEAN, "--", "sh", "-c", "kill -USR2 1")
        assert _ended(service) == ("guest_poweroff", "the guest powered off")
    service.ask("vm", "delete", LEAN).ok()
    _check_nothing_left(service, user)


def _check_nothing_left(service: HostInside, user: int) -> None:
    """No process, file, mount or cgroup of a VM that is deleted."""
    assert _leaks(service) == []
    look = f"find /var/lib/banger /run/banger -uid {user}; find /proc -maxdepth 1 -uid {user}; grep jails /proc/mounts"
    assert service.shell(f"{look}; true").ok().text == ""


def _leaks(service: HostInside) -> list[dict[str, Any]]:
    """What nobody holds; the other tests' VM may run."""
    return [one for one in service.ask("doctor", "--leaks", "--json").ok().json() if one["is_leak"]]


@pytest.mark.usefixtures("firecracker", "world")
def test_vm_on_firecracker_of_an_ordinary_user_has_a_confined_network(
    service: HostInside, tester: Callable[..., Result], home: BangerHome, tmp_path: Path
) -> None:
    _bring_kernel_and_image(service, home, tmp_path)
    service.shell("chmod a+r /srv/vmlinuz /srv/busybox.ext4").ok()

    def banger(*argv: str) -> Result:
        return tester(BANGER, *argv)

    banger("kernel", "import", VM, "--kernel", "/srv/vmlinuz", "--modules", MODULES).ok()
    banger("image", "register", "--rootfs", "/srv/busybox.ext4", "--name", VM).ok()
    _run_lean(banger, "user", 8090)
    shown = banger("vm", "show", "--json", LEAN).json()
    assert (shown["vmm"], shown["network"]) == ("firecracker", "user")
    status = service.run("cat", f"/proc/{shown['pid']}/status").ok().text
    assert f"Uid:\t{TESTER}\t" in status
    assert "CapEff:\t0000000000000000\n" in status
    check_network(service, banger, LEAN, 8090)
    banger("vm", "delete", "--force", LEAN).ok()
    assert banger("doctor", "--leaks", "--json").json() == []
    banger("daemon", "stop").ok()


def _run_lean(banger: Callable[..., Result], network: str, port: int) -> None:
    options = ("--network", network, "--memory", "192M", "--kernel", VM, "-p", f"{port}:80")
    banger("vm", "run", "--detach", "--name", LEAN, "--vmm", "firecracker", *options, VM, "--", *LISTENING).ok()


def _ended(service: HostInside) -> tuple[str, str]:
    """Why the VM on Firecracker stands still."""
    ended = eventually(
        lambda: (shown := _vm(service, LEAN))["state"] == "stopped" and shown, PATIENCE_S, "the end to be seen"
    )
    return ended["exit_reason"], ended["reason"]


@a_long_one
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("firecracker")
def test_vm_on_firecracker_survives_a_supervisor_that_dies_at_any_point_of_its_life(
    service: HostInside, home: BangerHome, tmp_path: Path
) -> None:
    """The form of tests/e2e/test_e2e_crashes.py for this driver, its jail and the service manager.

    A point takes a start of the daemon or two, and a boot, each on an emulated CPU: three of them take minutes.
    """
    _bring_kernel_and_image(service, home, tmp_path)
    options = ("--vmm", "firecracker", "--network", "none", "--memory", "192M", "--kernel", VM)
    create = ("create", "--name", CRASHED, *options, VM)
    service.ask("vm", *create).ok()
    for point in points_of("start", NOT_WITHOUT_NETWORK):
        _die(service, point, "start", CRASHED)
        service.ask("vm", "start", CRASHED).ok()
        service.ask("vm", "kill", CRASHED).ok()
    for point in points_of("stop", NOT_WITHOUT_NETWORK):
        service.ask("vm", "start", CRASHED).ok()
        _die(service, point, "stop", CRASHED)
    for point in points_of("delete", NOT_WITHOUT_NETWORK):
        _die(service, point, "delete", "--force", CRASHED)
        if CRASHED in [vm["name"] for vm in known_objects(service, "vm")]:
            service.ask("vm", "delete", "--force", CRASHED).ok()
        service.ask("vm", *create).ok()
    service.ask("vm", "delete", "--force", CRASHED).ok()


def _die(service: HostInside, point: str, *command: str) -> None:
    """A command of a supervisor that dies at ``point``; the next one has mended it, and no machine is lost."""
    service.shell(
        f"systemctl set-environment BANGER_CRASHPOINT={point}; systemctl reset-failed {UNIT};"
        f"systemctl restart {UNIT}; systemctl unset-environment BANGER_CRASHPOINT"
    ).ok()
    dying = unit_facts(service)["MainPID"]
    assert service.ask("vm", *command).code != 0, point
    wait_restarted(service, dying)
    assert service.ask("system", "reconcile").ok().text == "nothing to repair\n", point
    assert _leaks(service) == [], point
    alive = [str(vm["pid"]) for vm in known_objects(service, "vm") if vm["state"] == "running"]
    assert sorted(service.shell("pidof firecracker qemu-system-x86_64").text.split()) == sorted(alive), point


@a_long_one
def test_launch_of_an_ordinary_users_systemd(inside: HostInside, tester: Callable[..., Result]) -> None:
    """The user's own manager starts, limits and forgets processes just the same."""
    inside.run("chmod", "-R", "a+rX", "/src").ok()
    inside.run("systemctl", "start", f"user@{TESTER}.service").ok()
    suite = "tests/contract/test_launch_contract.py"
    tests = ("-k", "systemd and (limits or memory or released or kill)", f"--basetemp={TESTERS_HOME}/tmp")
    variables = ("env", "-C", "/src", f"XDG_RUNTIME_DIR=/run/user/{TESTER}", "PYTHONDONTWRITEBYTECODE=1")
    options = ("-q", "-rs", "-p", "no:cacheprovider", "-p", "no:randomly")
    ran = tester(*variables, PYTHON, "-m", "pytest", *options, *tests, suite)
    assert ran.code == 0, str(ran)
    assert "SKIPPED" not in ran.text, ran.text


def test_kvm_is_proven_by_a_guest_and_a_machine_runs_on_it(service: HostInside, inner: str, checks: Checks) -> None:
    assert checks["kvm"]["verdict"] == "ok"
    assert _vm(service)["accelerator"] == "kvm"
    assert service.ask("vm", "exec", inner, "--", "uname", "-n").ok().text == f"{inner}\n"


def test_vmm_that_systemd_started_on_kvm_is_in_a_jail(service: HostInside, inner: str, checks: Checks) -> None:
    pid = _vm(service)["pid"]
    status = service.run("cat", f"/proc/{pid}/status").ok().text.splitlines()
    found = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
    assert int(found["Uid"][0]) >= 2_100_000_000
    assert found["CapBnd"] == ["0" * 16]
    assert service.shell(f"test -e /proc/{pid}/root/dev/kvm").ok()
    assert service.shell(f"test -e /proc/{pid}/root/var/lib/banger/banger.db").code == 1
    assert checks["jail"]["verdict"] == "ok"


def test_outer_machine_runs_on_what_doctor_says(home: BangerHome, inside: HostInside) -> None:
    """Where KVM opens but guests hang on it, machines are emulated and doctor says why."""
    verdict = {check["name"]: check for check in home.json("doctor")}["kvm"]
    accelerator = home.json("vm", "show", inside.vm)["accelerator"]
    assert accelerator == ("kvm" if verdict["verdict"] == "ok" else "tcg")
    if accelerator == "tcg" and Path("/dev/kvm").exists():
        assert "KVM does not run guests here" in verdict["detail"] or "no permission" in verdict["detail"]


def test_machine_is_a_limited_service_of_systemd(service: HostInside, inner: str, checks: Checks) -> None:
    assert "services of systemd (the daemon is one itself), limited" in checks["launcher"]["detail"]
    unit = _unit(service)
    facts = unit_facts(service, unit)
    assert int(facts["MainPID"]) == _vm(service)["pid"]
    assert facts["Slice"] == "banger.slice"
    assert facts["CPUQuotaPerSecUSec"].startswith("1.5")
    assert int(facts["MemoryMax"]) == (256 + 512) << 20
    assert int(facts["TasksMax"]) > 64


def test_machine_outlives_a_daemon_that_crashes_and_the_next_one_tells_how_it_ended(
    service: HostInside, inner: str
) -> None:
    vm, daemon = _vm(service)["pid"], unit_facts(service)["MainPID"]
    service.run("kill", "-KILL", daemon).ok()
    wait_restarted(service, daemon)
    _check_lives_on(service, vm)
    service.run("kill", "-KILL", str(vm)).ok()
    ended = eventually(
        lambda: (shown := _vm(service))["state"] == "stopped" and shown, PATIENCE_S, "the end to be seen"
    )
    assert (ended["exit_reason"], ended["reason"]) == ("killed", "the VMM was killed with SIGKILL")
    assert not vm_units(service)


@a_long_one
def test_machine_outlives_a_daemon_that_hangs_until_the_watchdog_ends_it(service: HostInside, inner: str) -> None:
    vm, daemon = _vm(service)["pid"], unit_facts(service)["MainPID"]
    service.run("kill", "-STOP", daemon).ok()
    wait_restarted(service, daemon)
    _check_lives_on(service, vm)
    assert "watchdog" in service.run("journalctl", "--no-pager", "--unit", UNIT, "--lines", "50").text.lower()


def test_machine_outlives_an_upgrade(service: HostInside, inner: str) -> None:
    vm, daemon = _vm(service)["pid"], unit_facts(service)["MainPID"]
    service.install()
    restart(service)
    assert unit_facts(service)["MainPID"] != daemon
    _check_lives_on(service, vm)


@a_long_one
def test_machine_in_a_session_of_its_own_outlives_a_restart_too(inner: str, sessions: HostInside) -> None:
    sessions.ask("vm", "stop", VM).ok()
    assert not vm_units(sessions)
    assert _leaks(sessions) == []
    sessions.ask("vm", "start", VM).ok()
    assert not vm_units(sessions)
    assert "not limited" in doctor_checks(sessions)["launcher"]["detail"]
    vm = _vm(sessions)["pid"]
    restart(sessions)
    _check_lives_on(sessions, vm)
    sessions.ask("vm", "stop", VM).ok()


@pytest.mark.closing
def test_uninstall_takes_everything_back(installed: HostInside) -> None:
    installed.banger("daemon", "uninstall", "--system").ok()
    facts = unit_facts(installed)
    assert (facts["LoadState"], facts["ActiveState"]) == ("not-found", "inactive")
    left = installed.shell(
        f"ls -d {UNIT_FILE} /etc/systemd/system/*.wants/{UNIT} 2>/dev/null; pgrep -f '[b]anger daemon'"
    )
    assert left.text == ""


def _bring_kernel_and_image(service: HostInside, home: BangerHome, scratch: Path) -> None:
    """What is there already, from an attempt that failed later, is left as it is."""
    if not known_objects(service, "kernel"):
        kernel = home.data / "kernels" / home.json("kernel", "list")[0]["id"] / "vmlinuz"
        service.put(kernel, "/srv/vmlinuz")
        service.shell(
            f"mkdir -p {MODULES} && cd /lib/modules/* && cp --parents -r {NEEDED_MODULES} modules.* {MODULES}"
        ).ok()
        service.banger("kernel", "import", VM, "--kernel", "/srv/vmlinuz", "--modules", MODULES).ok()
    if not known_objects(service, "image"):
        service.put(busybox_rootfs(scratch / "busybox.ext4"), "/srv/busybox.ext4")
        service.banger("image", "register", "--rootfs", "/srv/busybox.ext4", "--name", VM).ok()


def _unit(host: HostInside) -> str:
    (unit,) = vm_units(host)
    return unit


def _vm(host: HostInside, name: str = VM) -> dict[str, Any]:
    return vm_facts(host, name)


def _check_lives_on(host: HostInside, pid: int, name: str = VM) -> None:
    vm = _vm(host, name)
    assert (vm["state"], vm["pid"]) == ("running", pid)
    assert host.ask("vm", "exec", name, "--", "echo", "alive").ok().text == "alive\n"
