"""What a Firecracker in a jail has of the host, and how its own jailer makes that jail.

The jailer (Firecracker: ``docs/jailer.md``) copies the program into a directory, makes that the root, with
``/dev/kvm``, ``/dev/net/tun`` and ``/dev/urandom`` in it, and becomes the VMM's user. It closes all descriptors, so
Firecracker opens what it works with by itself: each thing is put into that root, and its user has the right to it.

That directory is in memory, in a root directory where the jailer sees itself, Firecracker and nothing else: none of it
is on the host, it ends with the process, and a jailer that followed a link would not get out of it (CVE-2026-1386). One
directory in it is the host's too, for the sockets. It is Firecracker's until the machine runs, and root's from then on.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from banger.core.names import vmm_marker
from banger.core.ports import AGENT_SOCKET, Drive, TapNic, VmmConfig
from banger.launch import Confinement, ForJailer, Put
from banger.vmm import handing
from banger.vmm.firecracker.binary import Binary
from banger.vmm.firecracker.configuration import API_SOCKET, CPU_TEMPLATE, CPU_TEMPLATES
from banger.vmm.firecracker.metrics import metrics_file
from banger.vmm.firecracker.saving_place import make_place, saving_place
from banger.vmm.starting import NotRunningError

#: Where the jailer makes jails, in the root directory that it sees itself.
_BASE = Path("/jails")
#: In Firecracker's own root: the directory that the host sees too, and all else.
_SHARED, _LOG, _METRICS, _KERNEL, _INITRD, _DRIVES = (
    Path(one) for one in ("/vm", "/vmm.log", "/vmm-metrics.log", "/kernel", "/initrd", "/drives")
)
_TEMPLATE = "cpu-template.json"
#: Where its machine is saved, and where another's is that it begins with.
SAVING, _SAVED = Path("/saving"), Path("/saved")
#: For all but the program itself, in bytes: device nodes, and places for what is put there.
_ROOM_BYTES = 1 << 20


def shared_dir(run_dir: Path) -> Path:
    """The directory that both see, on the host."""
    return run_dir / "jail"


def places(config: VmmConfig) -> Mapping[Path, Path]:
    """Where Firecracker finds each file, and the sockets for which it is told ``run_dir``. Pure."""
    found = {
        config.run_dir: _SHARED,
        config.vmm_log: _LOG,
        metrics_file(config.vmm_log): _METRICS,
        config.kernel: _KERNEL,
        config.initrd: _INITRD,
        **{drive.path: _DRIVES / drive.label for drive in _drives(config)},
    }
    if template := _template(config):
        found[template] = _SHARED / _TEMPLATE
    if saved := config.saved:
        found |= {path: _SAVED / path.name for path in (saved.memory, saved.devices)}
    return found


def confinement(config: VmmConfig, binary: Binary) -> Confinement:
    """What the jailer sees and gets. Without a tap there is no network at all."""
    if binary.jailer is None:
        raise handing.no_jail(config.name, binary.why_not_jailed)
    root = _BASE / binary.path.name / vmm_marker(config.vm_id) / "root"
    put = [Put(one.mode, one.path, root / one.place.relative_to("/")) for one in _put(config)]
    taps = [device.tap for device in config.devices if isinstance(device, TapNic)]
    size_bytes = binary.path.stat().st_size + _ROOM_BYTES
    return Confinement(
        visible=(binary.jailer, binary.path),
        uid=config.uid,
        has_network=bool(taps),
        has_processes=False,
        jailer=ForJailer(_BASE, size_bytes, put, taps),
    )


def command_line(config: VmmConfig, binary: Binary, arguments: Sequence[str]) -> list[str]:
    """The jailer's. Cgroups and namespaces are made by whoever starts it, and limits too but that of open files.

    It would tell nobody how a process ends that it has put into a PID namespace: it leaves it behind.
    """
    user = str(config.uid)
    options = ["--id", vmm_marker(config.vm_id), "--exec-file", str(binary.path), "--uid", user, "--gid", user]
    return [str(binary.jailer), *options, "--chroot-base-dir", str(_BASE), "--", *arguments]


def prepare(config: VmmConfig, files: Mapping[str, str]) -> None:
    """Make its directories anew, the shared one with text files by name, and give Firecracker what it opens.

    Disks and logs, which one VMM uses, become its user's; what VMs share may be read, and cannot be written through
    what is put into the jail.

    Raises:
        BangerError: ``unavailable`` for files that are not there, and on a file system that does not know users.
    """
    shared = shared_dir(config.run_dir)
    try:
        shutil.rmtree(shared, ignore_errors=True)
        shared.mkdir(mode=0o700)
        make_place(config.vmm_log)
        if template := _template(config):
            files = {**files, _TEMPLATE: template.read_text(encoding="utf-8")}
        for name, text in files.items():
            with os.fdopen(
                os.open(shared / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(text)
            handing.give(shared / name, config.uid)
        own = [config.vmm_log, metrics_file(config.vmm_log), shared]
        if config.saved is None:
            handing.show(config.kernel)
            own.append(config.initrd)
        for path in own:
            handing.give(path, config.uid)
        for drive in _drives(config):
            _give_drive(drive, config.uid)
        for name in (API_SOCKET, AGENT_SOCKET):
            (config.run_dir / name).symlink_to(Path(shared.name, name))
    except FileNotFoundError as error:
        raise handing.not_handed(config.name, f"{error.filename}: {error.strerror}") from error
    except OSError as error:
        raise handing.no_jail(config.name, f"{error.filename}: {error.strerror}") from error


def seal(config: VmmConfig) -> None:
    """Take the shared directory from Firecracker, once its sockets are there.

    Who takes it over can put nothing else in their places then, upon which the daemon would call another's.

    Raises:
        NotRunningError: something else is there already.
    """
    shared = shared_dir(config.run_dir)
    os.chown(shared, 0, 0)
    for path in (shared / API_SOCKET, shared / AGENT_SOCKET):
        if path.is_symlink() or not path.is_socket():
            raise NotRunningError(f"it has made no socket {path.name}")


def _put(config: VmmConfig) -> Iterator[Put]:
    where = places(config)
    yield Put("write", shared_dir(config.run_dir), _SHARED)
    yield Put("write", config.vmm_log, _LOG)
    yield Put("write", metrics_file(config.vmm_log), _METRICS)
    yield Put("write", saving_place(config.vmm_log), SAVING)
    if config.saved is None:
        yield Put("read", config.kernel, _KERNEL)
        yield Put("read", config.initrd, _INITRD)
    else:
        for path in (config.saved.memory, config.saved.devices):
            yield Put("read", path, where[path])
    for drive in _drives(config):
        yield Put("read" if drive.read_only else "write", drive.path, where[drive.path])


def _give_drive(drive: Drive, uid: int) -> None:
    if stat.S_ISBLK(drive.path.stat().st_mode):
        return  # of which the jail has a node of its own
    if drive.read_only:
        handing.show(drive.path)
    else:
        handing.give(drive.path, uid)


def _drives(config: VmmConfig) -> list[Drive]:
    return [device for device in config.devices if isinstance(device, Drive)]


def _template(config: VmmConfig) -> Path | None:
    """The CPU template, if it is a file."""
    template = config.options.get(CPU_TEMPLATE, "")
    return Path(template) if template and template not in CPU_TEMPLATES else None
