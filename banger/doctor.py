"""Checks whether this host can run VMs; each failed check comes with a remedy to type.

Runs in the process that asks, not in the daemon: it must also tell why there is no daemon.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from banger.client import Client
from banger.config import Config
from banger.core.errors import BangerError
from banger.core.models import VmmProgram
from banger.core.units import GIB, MIB, format_size
from banger.core.vmm_names import EMULATED
from banger.layout import Layout
from banger.posix.files import read_regular

#: The WAL bug that two processes on one database can meet is fixed from here on (sqlite.org/releaselog).
SAFE_SQLITE = (3, 51, 3)
_LOW_SPACE = 2 * GIB
_NO_SPACE = 200 * MIB
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

#: Who may have processes without a session (systemd-logind.service(8)).
_LINGERS = Path("/var/lib/systemd/linger")


class Status(StrEnum):
    """How a question was answered."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer.

    Attributes:
        name: what was looked at.
        detail: what was seen.
        remedy: a command to type, when the verdict is not ``ok``.
    """

    name: str
    verdict: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class RequiredProgram:
    """Something that must be installed.

    Attributes:
        places: names for ``PATH``, or absolute paths; any one will do.
        needed: without it no VM starts; otherwise ``use`` tells what is lost.
    """

    name: str
    places: Sequence[str]
    package: str
    needed: bool
    use: str


PROGRAMS = (
    RequiredProgram("qemu", ("qemu-system-x86_64",), "qemu-system-x86", needed=True, use="runs the VMs"),
    RequiredProgram("mke2fs", ("mke2fs",), "e2fsprogs", needed=True, use="makes file systems"),
    RequiredProgram("e2fsck", ("e2fsck",), "e2fsprogs", needed=True, use="checks file systems"),
    RequiredProgram("busybox", ("busybox", "busybox.static"), "busybox-static", needed=True, use="boots guests"),
    RequiredProgram("dropbear", ("dropbear",), "dropbear-bin", needed=True, use="lets us into guests"),
    RequiredProgram(
        "sftp-server",
        ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"),
        "openssh-sftp-server",
        needed=True,
        use="lets sftp into guests",
    ),
    RequiredProgram("ssh", ("ssh",), "openssh-client", needed=False, use="banger vm ssh"),
    RequiredProgram("mmdebstrap", ("mmdebstrap",), "mmdebstrap", needed=False, use="images made from Debian packages"),
)


def diagnose(layout: Layout) -> Iterator[Check]:
    """Answer every question, the cheap ones first. A question that fails to be answered is a failed check."""
    config: Config | None = None
    try:
        config = Config.load(layout.config_file)
        yield Check("settings", Status.OK, str(layout.config_file) if layout.config_file.exists() else "defaults")
    except BangerError as error:
        yield _from_error("settings", error)
    for program in PROGRAMS:
        yield check_program(program)
    yield from check_directories(layout)
    yield from check_logout(layout)
    yield check_space(layout)
    yield check_sqlite()
    if config is not None:
        yield (here := check_accelerator(layout, config))
        yield from check_agreement(layout, here)
        yield from check_vmms(layout, config)
    yield from check_storage(layout)
    yield from check_network(layout)
    yield check_daemon(layout)
    yield check_launcher(layout)
    if config is not None:
        yield check_jail(layout, config)


def check_program(program: RequiredProgram, find: Callable[[str], str | None] | None = None) -> Check:
    """Whether a program is installed."""
    find = find or _find
    found = next(filter(None, map(find, program.places)), None)
    if found:
        return Check(program.name, Status.OK, found)
    verdict = Status.FAILED if program.needed else Status.WARNING
    return Check(program.name, verdict, f"not installed: {program.use}", f"apt-get install {program.package}")


def check_directories(layout: Layout) -> Iterator[Check]:
    """Whether our directories, or those they will be made in, can be written."""
    for name, path in (("data", layout.data), ("run", layout.run), ("cache", layout.cache)):
        existing = _nearest_existing(path)
        if os.access(existing, os.W_OK | os.X_OK, effective_ids=True):
            yield Check(f"{name} directory", Status.OK, str(path))
        else:
            remedy = "set BANGER_HOME to a directory of yours"
            yield Check(f"{name} directory", Status.FAILED, f"{existing} cannot be written", remedy)
    from banger.vmm.survey import LONGEST_SOCKET  # noqa: PLC0415  # the daemon's world, for this question only

    length = len(os.fsencode(layout.vm_run_dir("0" * 12) / LONGEST_SOCKET))
    if length > 107:
        detail = f"paths of sockets below {layout.run} would have {length} bytes, Linux takes 107"
        yield Check("socket paths", Status.FAILED, detail, "set BANGER_HOME to a shorter directory")


def check_logout(layout: Layout, systemd: Path = Path("/run/systemd/system"), kept: Path = _LINGERS) -> Iterator[Check]:
    """Whether the sockets of machines outlive their user's last session, if systemd has a say in that."""
    uid = os.getuid()
    if not layout.run.is_relative_to(f"/run/user/{uid}") or not systemd.is_dir():
        return
    name = pwd.getpwuid(uid).pw_name
    if not (kept / name).exists():
        detail = (
            f"{layout.run} is removed when you log out: a daemon that is started later cannot reach VMs that ran then"
        )
        yield Check("logout", Status.WARNING, detail, "loginctl enable-linger; or banger vm restart afterwards")


def check_space(layout: Layout, free_bytes: int | None = None) -> Check:
    """Whether there is room for an image or two."""
    where = _nearest_existing(layout.data)
    if free_bytes is None:
        free_bytes = shutil.disk_usage(where).free
    detail = f"{format_size(free_bytes)} free below {where}"
    verdict = Status.FAILED if free_bytes < _NO_SPACE else Status.WARNING if free_bytes < _LOW_SPACE else Status.OK
    return Check("disk space", verdict, detail, "" if verdict is Status.OK else "banger system df")


def check_sqlite(version: tuple[int, ...] | None = None) -> Check:
    """Whether the SQLite that the daemon will use is free of the WAL bug."""
    if version is None:
        try:
            from pysqlite3 import dbapi2 as sqlite  # noqa: PLC0415  # only here
        except ImportError:
            import sqlite3 as sqlite  # noqa: PLC0415  # what the daemon falls back to
        version = sqlite.sqlite_version_info
    text = ".".join(map(str, version))
    if version >= SAFE_SQLITE:
        return Check("sqlite", Status.OK, text)
    wanted = ".".join(map(str, SAFE_SQLITE))
    return Check("sqlite", Status.WARNING, f"{text} is older than {wanted}", "pip install --upgrade pysqlite3")


def check_accelerator(layout: Layout, config: Config) -> Check:
    """Whether guests really run on KVM: told by running one."""
    from banger.vmm.survey import accelerator  # noqa: PLC0415  # the daemon's world, for this question only

    try:
        found = accelerator(layout, config)
    except BangerError as error:
        return _from_error("kvm", error)
    if found.name == "kvm":
        return Check("kvm", Status.OK, found.reason)
    detail = f"VMs are emulated, some 20 times slower: {found.reason}"
    return Check("kvm", Status.WARNING, detail, found.hint or "use hardware, or a host with nested virtualisation")


def check_agreement(layout: Layout, here: Check) -> Iterator[Check]:
    """Whether the daemon that runs finds the same: it has the rights, groups and settings of when it was started."""
    if not layout.socket.exists() or here.verdict is Status.FAILED:
        return
    try:
        system = _ask_daemon(layout)
    except BangerError:
        return  # told by the daemon's own check
    there, reason = system.get("accelerator"), system.get("accelerator_reason")
    if there and (there == EMULATED) is (here.verdict is Status.OK):
        detail = f"the daemon does not find the same: its VMs run on {there} ({reason})"
        yield Check(
            "kvm",
            Status.WARNING,
            detail,
            "banger daemon stop; the next command starts it with your present rights",
        )


def check_vmms(layout: Layout, config: Config) -> Iterator[Check]:
    """Which Firecracker there is, whether it is still mended, and whether what was installed is unchanged."""
    from banger.vmm.programs import all_programs, check_installed  # noqa: PLC0415  # the daemon's world, as above

    found = [program for program in all_programs(layout, config) if program.name == "firecracker"]
    if not found:
        wanted = config.text("vmm.driver") == "firecracker"
        verdict = Status.FAILED if wanted else Status.OK
        yield Check("firecracker", verdict, "not installed", "banger driver install firecracker")
    for program in found:
        yield explain_vmm(program, check_installed(layout, program))


def explain_vmm(program: VmmProgram, damage: str = "") -> Check:
    """One Firecracker in words; ``damage`` is what is wrong with its files."""
    again = "banger driver install firecracker"
    where = "installed" if program.origin == "installed" else program.path
    if problem := program.broken or damage:
        version = f" --version {program.version}" if program.version else ""
        detail = f"{program.version or 'none'} cannot be used: {problem}"
        return Check("firecracker", Status.FAILED, detail, f"{again}{version}")
    taken = ", for new VMs" if program.is_default else ""
    detail = f"{program.version} ({where}{taken}), {program.support}"
    if program.jail_problem:
        unused = (
            f"a daemon of root's does not use it unless vmm.jail is off, as it cannot be jailed: {program.jail_problem}"
        )
        return Check("firecracker", Status.WARNING, f"{detail}; {unused}", again)
    verdict = Status.WARNING if program.is_outdated and program.is_default else Status.OK
    return Check("firecracker", verdict, detail, again)


def check_storage(layout: Layout) -> Iterator[Check]:
    """Which storage drivers work here: each is tried. That some do not is fine."""
    from banger.storage.drivers import survey  # noqa: PLC0415  # the daemon's world, for this question only

    if not layout.data.is_dir() or not os.access(layout.data, os.W_OK):
        return
    found = list(survey(layout))
    yield Check("storage", Status.OK, ", ".join(one.name for one in found if one.works))
    for one in found:
        if not one.works:
            yield Check("storage", Status.OK, f"not {one.name}: {one.reason}")


def check_network(layout: Layout) -> Iterator[Check]:
    """Whether VMs may have networks, and what other firewalls on this host would do to taps. Having none is fine."""
    from banger.network import coexistence, probe  # noqa: PLC0415  # the daemon's world, for this question only
    from banger.network.namespace import probe as namespaces  # noqa: PLC0415

    yield explain_user_network(obstacle := namespaces.look(), None if obstacle else namespaces.failure())
    can, reason = probe.available()
    if not can:
        yield Check("taps", Status.OK, f"none on this host's own network: {reason}")
        return
    yield Check("taps", Status.OK, reason or "bridged networking works")
    try:
        installation = read_regular(layout.installation_id_file).decode(errors="replace").strip()
        findings = coexistence.find(installation, layout.data / "network.json")
    except (OSError, BangerError):
        return  # no daemon has run yet, so there is nothing of ours to get along with
    for finding in findings:
        verdict = Status.WARNING if finding.remedy else Status.OK
        yield Check(finding.name, verdict, finding.problem, finding.remedy)


def explain_user_network(obstacle: str, failure: tuple[str, str] | None = None) -> Check:
    """What VMs of the network ``user`` have here.

    Args:
        obstacle: why they do not have what they should; empty if all that it takes is there.
        failure: why it does not work all the same, and what to look at.
    """
    if not obstacle and failure:
        detail = f"pasta does not start, so VMs on the network user reach nothing beyond this host: {failure[0]}"
        return Check("network", Status.WARNING, detail, failure[1])
    if not obstacle:
        return Check("network", Status.OK, "VMs are confined to what --egress allows, without privileges (pasta)")
    detail, _, remedy = obstacle.partition(": ")
    instead = (
        "VMs on the network user reach nothing, and with --egress open they are on slirp instead, which has no rules: "
        "they reach this host's own services (at 10.0.2.2) and all networks that this host reaches"
    )
    return Check("network", Status.WARNING, f"{detail}: {instead}", remedy)


def check_daemon(layout: Layout) -> Check:
    """Whether a daemon answers; that none runs is fine, as the next command starts one."""
    if not layout.socket.exists():
        return Check("daemon", Status.OK, "not running; started when it is needed")
    try:
        system = _ask_daemon(layout)
    except BangerError as error:
        return _from_error("daemon", error)
    return Check("daemon", Status.OK, f"pid {system.get('pid')} answers at {layout.socket}")


def check_launcher(layout: Layout) -> Check:
    """How VMMs are started and whether they are limited, which depends on how the daemon itself was started."""
    if not layout.socket.exists():
        return Check("launcher", Status.OK, "chosen when the daemon starts")
    try:
        return explain_launcher(_ask_daemon(layout).get("launcher"))
    except BangerError as error:
        return _from_error("launcher", error)


def explain_launcher(facts: object) -> Check:
    """The daemon's answer in words."""
    if not isinstance(facts, Mapping):
        return Check("launcher", Status.OK, "the daemon does not tell")
    if problem := facts.get("error"):
        return Check("launcher", Status.FAILED, str(problem), "set vmm.launcher to auto")
    what = "services of systemd" if facts.get("name") == "systemd" else "sessions of their own"
    limits = "limited" if facts.get("limited") else f"not limited: {facts.get('unlimited_because')}"
    return Check("launcher", Status.OK, f"VMs run in {what} ({facts.get('reason')}), {limits}")


def check_jail(layout: Layout, config: Config) -> Check:
    """Whether VMMs are confined: by the daemon's word if one runs, else as the next one is told."""
    uid, launcher = os.geteuid(), {"jailed": config.text("vmm.jail") != "off", "unjailed_because": "vmm.jail is off"}
    if layout.socket.exists():
        try:
            system = _ask_daemon(layout)
        except BangerError as error:
            return _from_error("jail", error)
        return explain_jail(system.get("uid"), system.get("launcher"))
    return explain_jail(uid, launcher)


def explain_jail(uid: object, launcher: object) -> Check:
    """What the daemon of ``uid`` says of how it launches, in words; an older one does not tell."""
    if uid != 0:
        return Check("jail", Status.OK, "VMMs run as the daemon's user: only root's daemon has others to give")
    if not isinstance(launcher, Mapping) or "jailed" not in launcher:
        return Check("jail", Status.OK, "the daemon does not tell")
    if problem := launcher.get("jail_obstacle"):
        return Check("jail", Status.FAILED, f"no VM can be started: {problem}", "to do without: set vmm.jail to off")
    if launcher["jailed"]:
        return Check("jail", Status.OK, "every VMM is a user of its own and sees nothing of the host but what it needs")
    words = f"VMMs run as root: {launcher.get('unjailed_because')}"
    return Check("jail", Status.WARNING, words, "set vmm.jail to on, and restart the daemon")


def _ask_daemon(layout: Layout) -> Mapping[str, object]:
    system: Mapping[str, object] = Client(layout.socket, timeout_s=5).get("/v1/system")
    return system


def _from_error(name: str, error: BangerError) -> Check:
    return Check(name, Status.FAILED, str(error), error.hint)


def _find(place: str) -> str | None:
    if place.startswith("/"):
        return place if os.access(place, os.X_OK) else None
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    return shutil.which(place, path=search)


def _nearest_existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())
