"""Every path banger uses, from one object. Imports nothing heavy: the CLI uses it too."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from banger.posix.files import read_regular
from banger.trusted_path import check_own, check_trusted

#: Says where the sockets are, for whoever has another environment than the daemon had when it was started.
_RUN_FILE = "run-directory"


class ImagePlace(Protocol):
    """What tells where an image is."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def rootfs_path(self) -> str:
        """The user's own file, or empty."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lives.

    Attributes:
        data: what must survive a reboot; ``images``, ``kernels``, ``vms``, ``snapshots``, ``templates``, ``staging``
            and ``trash`` share its file system, so that publishing is one rename.
        run: sockets; gone after a reboot.
        config: ``config.toml`` and ``catalog.d``.
        cache: what can be made again.
        keeps_run: ``run`` depends on more than where the data is, so it is written down there.
    """

    data: Path
    run: Path
    config: Path
    cache: Path
    keeps_run: bool = False

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None, uid: int | None = None) -> Layout:
        """System paths for root, XDG paths for a user; ``BANGER_HOME`` moves all of it under one directory.

        A user's sockets stay where they are as long as that directory is there: a session has ``XDG_RUNTIME_DIR``, and
        ``cron``, ``su`` and ``sudo -u`` have none or another user's.
        """
        env = os.environ if env is None else env
        uid = os.getuid() if uid is None else uid
        if home := env.get("BANGER_HOME"):
            root = Path(home).absolute()
            return cls(root / "data", root / "run", root / "config", root / "cache")
        if uid == 0:
            return cls(Path("/var/lib/banger"), Path("/run/banger"), Path("/etc/banger"), Path("/var/cache/banger"))
        base = Path(env.get("HOME") or _home_of(uid))
        data = Path(env.get("XDG_DATA_HOME") or base / ".local/share")
        config = Path(env.get("XDG_CONFIG_HOME") or base / ".config")
        cache = Path(env.get("XDG_CACHE_HOME") or base / ".cache")
        runtime = Path(env.get("XDG_RUNTIME_DIR") or cache)
        run = _kept_run(data / "banger", uid) or (runtime if _is_directory_of(runtime, uid) else cache) / "banger"
        return cls(data / "banger", run, config / "banger", cache / "banger", keeps_run=True)

    @property
    def database(self) -> Path:
        """The SQLite store."""
        return self.data / "banger.db"

    @property
    def lock_file(self) -> Path:
        """Held by the one daemon of this state directory."""
        return self.data / "daemon.lock"

    @property
    def daemon_log(self) -> Path:
        """The daemon's log when it was started by the CLI."""
        return self.data / "daemon.log"

    @property
    def installation_id_file(self) -> Path:
        """Twelve hex digits that mark every host object of this installation."""
        return self.data / "installation-id"

    @property
    def socket(self) -> Path:
        """The API's Unix socket."""
        return self.run / "banger.sock"

    @property
    def blobs(self) -> Path:
        """Verified registry blobs: ``sha256/<hex>``; ``.part`` while they arrive."""
        return self.data / "blobs"

    @property
    def staging(self) -> Path:
        """What is being built."""
        return self.data / "staging"

    @property
    def trash(self) -> Path:
        """What is being deleted."""
        return self.data / "trash"

    @property
    def config_file(self) -> Path:
        """The settings."""
        return self.config / "config.toml"

    @property
    def catalog_dir(self) -> Path:
        """The user's own catalog files, overriding the shipped ones."""
        return self.config / "catalog.d"

    @property
    def toolbox(self) -> Path:
        """Cached toolbox initrds."""
        return self.cache / "toolbox"

    @property
    def ssh_key(self) -> Path:
        """The private key that opens every guest of this installation; ``.pub`` beside it."""
        return self.data / "ssh" / "id_ed25519"

    def image_dir(self, image_id: str) -> Path:
        """``images/ID``."""
        return self.data / "images" / image_id

    def image_rootfs(self, image: ImagePlace) -> Path:
        """The root file system of an image: read-only, or the user's own for an unmanaged one."""
        return Path(image.rootfs_path) if image.rootfs_path else self.image_dir(image.id) / "rootfs.ext4"

    def image_seed(self, image: ImagePlace) -> Path:
        """The work seed of an image, if it has one."""
        return self.image_dir(image.id) / "seed.ext4"

    def kernel_dir(self, kernel_id: str) -> Path:
        """``kernels/ID``."""
        return self.data / "kernels" / kernel_id

    def driver_dir(self, name: str, version: str) -> Path:
        """``drivers/NAME/VERSION``: the programs of a VMM that banger installed."""
        return self.data / "drivers" / name / version

    def vm_dir(self, vm_id: str) -> Path:
        """A VM's disk, handles and logs."""
        return self.data.joinpath("vms", vm_id)

    def suspended_dir(self, vm_id: str) -> Path:
        """The machine of a suspended VM."""
        return self.vm_dir(vm_id) / "suspended"

    def snapshot_dir(self, snapshot_id: str) -> Path:
        """``snapshots/ID``."""
        return self.data / "snapshots" / snapshot_id

    def template_dir(self, template_id: str) -> Path:
        """``templates/ID``."""
        return self.data / "templates" / template_id

    @property
    def homes(self) -> Path:
        """Home disks, which outlive VMs."""
        return self.data / "homes"

    @property
    def evidence(self) -> Path:
        """What is kept of VMs that went wrong."""
        return self.data / "evidence"

    def vm_run_dir(self, vm_id: str) -> Path:
        """A VM's sockets."""
        return self.run.joinpath("vms", vm_id)

    def check_trusted(self) -> None:
        """Raise ``denied`` if somebody else made, or could change, one of the directories. Ask before opening any."""
        for path in (self.data, self.run, self.cache):
            check_own(path)
        check_trusted(self.config)

    def make_directories(self) -> None:
        """Create what the daemon needs, private to its user (mode 0700).

        Raises:
            BangerError: ``denied`` for a directory that another user made or could have changed.
            OSError: it cannot be made.
        """
        self.check_trusted()
        for path in (
            self.data, self.run, self.cache, self.blobs / "sha256", self.staging, self.trash, self.toolbox,
            self.data / "images", self.data / "kernels", self.data / "vms", self.data / "snapshots",
            self.data / "templates", self.run / "vms", self.ssh_key.parent,
        ):  # fmt: skip
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check_trusted()  # where everybody may make what is not there yet, somebody may have been quicker
        if self.keeps_run and _kept_run(self.data, os.getuid()) != self.run:
            fresh = self.data / f"{_RUN_FILE}.new"
            fresh.write_bytes(os.fsencode(self.run))
            fresh.replace(self.data / _RUN_FILE)


def _kept_run(data: Path, uid: int) -> Path | None:
    """Where the sockets of that installation are, if that is still there."""
    try:
        kept = Path(os.fsdecode(read_regular(data / _RUN_FILE)))
    except OSError:
        return None
    return kept if kept.is_absolute() and _is_directory_of(kept, uid) else None


def _is_directory_of(path: Path, uid: int) -> bool:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir or "/"
    except KeyError:
        return "/"
