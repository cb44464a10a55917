"""Settings: defaults, then the system's or user's ``config.toml``, then the environment. Each value knows its origin.

Every key ``section.name`` is also the environment variable ``BANGER_SECTION_NAME``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banger.core.errors import BangerError, ErrorKind
from banger.core.network_names import NETWORKS
from banger.core.units import parse_size
from banger.core.vmm_names import ACCELERATORS, AUTO, DRIVERS, MACHINES
from banger.posix.files import read_regular


@dataclass(frozen=True, slots=True)
class Key:
    """One setting: its default decides its type; ``help`` is what ``banger config show`` prints beside it."""

    name: str
    default: str | int | float | bool
    help: str
    choices: tuple[str, ...] = ()
    is_size_mib: bool = False


STORAGE_DRIVERS = ("auto", "overlay", "reflink", "dm-snapshot", "copy")

KEYS: tuple[Key, ...] = (
    Key("vm.image", "debian", "default image of `vm run`"),
    Key("vm.kernel", "debian-cloud", "default kernel of a VM"),
    Key("vm.cpus", 1, "virtual CPUs of a VM"),
    Key("vm.memory_mib", 512, "memory of a VM, in MiB", is_size_mib=True),
    Key("vm.disk_mib", 10240, "size of a VM's writable disk (sparse), in MiB", is_size_mib=True),
    Key("vm.network", "user", "network of a VM", NETWORKS),
    Key("vm.boot_timeout_s", 120.0, "seconds that a guest may take to boot"),
    Key("vm.stop_timeout_s", 20.0, "seconds a guest may take to power off before it is killed"),
    Key("vm.home_mib", 4096, "size of a new home disk (sparse), in MiB", is_size_mib=True),
    Key(
        "run.templates",
        "off",
        "auto makes templates of what is started often, and uses them",
        ("auto", "off"),
    ),
    Key("run.template_after", 2, "starts of one kind within a day until there is a template of it"),
    Key("storage.driver", "auto", "storage driver of new VMs; auto is overlay", STORAGE_DRIVERS),
    Key("storage.snapshot_percent", 100, "how much of its disk a VM on dm-snapshot may change, in percent"),
    Key("storage.pause_free_mib", 512, "free space on the host below which VMs are paused, in MiB", is_size_mib=True),
    Key(
        "storage.resume_free_mib", 1024, "free space on the host above which they are resumed, in MiB", is_size_mib=True
    ),
    Key("storage.pause_fill_percent", 95, "fill level of a snapshot at which its VM is paused, in percent"),
    Key("storage.resume_fill_percent", 90, "fill level below which such a VM is resumed, in percent"),
    Key("snapshot.checkpoints", 5, "checkpoints that are kept of a VM, the newest ones"),
    Key("snapshot.checkpoints_mib", 10240, "what they may take, the newest one aside, in MiB", is_size_mib=True),
    Key("network.subnet", "", "IPv4 subnet of guests on taps, empty to choose a free one"),
    Key("network.ipv6", "on", "IPv6 addresses for guests", ("on", "off")),
    Key("network.egress", "public", "egress policy of a VM"),
    Key(
        "vmm.driver",
        AUTO,
        "VMM that runs VMs; auto takes Firecracker where it can do what a VM wants",
        (AUTO, *DRIVERS),
    ),
    Key("vmm.machine", "microvm", "QEMU machine type", MACHINES),
    Key("vmm.accelerator", "auto", "auto tests KVM with a small guest, and else emulates", ("auto", *ACCELERATORS)),
    Key(
        "vmm.launcher",
        "auto",
        "how VMMs are started; auto: as services if the daemon is one",
        ("auto", "session", "systemd"),
    ),
    Key("vmm.limits", "on", "limit CPU, memory and threads of a VMM to what its guest needs", ("on", "none")),
    Key("firecracker.version", "", "installed Firecracker for new starts of VMs, empty for the newest"),
    Key("firecracker.path", "", "directory with other firecracker and jailer programs, or the program"),
    Key("firecracker.cpu_template", "", "what guests on Firecracker see of the CPU: T2, T2S, T2CL, T2A, C3, or a file"),
    Key("vmm.jail", "on", "take from a VMM all of the host that its guest does not need", ("on", "off")),
    Key("vmm.jail_uids", "2100000000-2100999999", "users that root's daemon gives its VMMs, one each"),
    Key("image.size_mib", 0, "size of a pulled image's file system, 0 to choose by content", is_size_mib=True),
    Key("image.max_unpacked_mib", 65536, "limit for the unpacked layers of one image, in MiB", is_size_mib=True),
    Key("image.parallel_downloads", 4, "layers of one image downloaded at the same time"),
    Key("dns.suffix", "vm", "suffix of VM names, in DNS and for ssh"),
    Key("dns.listen", "127.0.0.1:5354", "address of the resolver (another port if it is in use), or off"),
    Key("dns.upstream", "", "name servers for other names, separated by commas; empty for those of /etc/resolv.conf"),
    Key("dns.host_names", "own", "names resolved for programs on this host: those of VMs, or all", ("own", "all")),
    Key("registry.insecure", "", "registries to use plain http for, separated by commas (always allowed: loopback)"),
    Key(
        "registry.stall_timeout_s",
        60.0,
        "seconds without data until a registry is given up, all attempts together",
    ),
    Key("registry.credentials", "", "Docker credential file, when not ~/.docker/config.json"),
    Key("daemon.log_level", "INFO", "minimum level that is logged", ("DEBUG", "INFO", "WARNING", "ERROR")),
    Key("daemon.reconcile_interval_s", 60.0, "seconds between two reconciles"),
    Key("daemon.shutdown_timeout_s", 15.0, "seconds to wait for running operations when the daemon stops"),
    Key(
        "daemon.on_shutdown",
        "keep",
        "running VMs when the host shuts down: keep leaves them to it, suspend saves them and brings them back",
        ("keep", "suspend"),
    ),
)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from: ``default``, a file's path, or an environment variable's name."""

    key: Key
    value: Any
    origin: str


class Config:
    """All settings, typed by their defaults."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = settings

    @classmethod
    def load(cls, file: Path, env: Mapping[str, str] | None = None) -> Config:
        """Read the file (absent is fine) and the environment. Unknown keys and wrong values are ``usage`` errors."""
        env = os.environ if env is None else env
        settings = {key.name: Setting(key, key.default, "default") for key in KEYS}
        for name, value in _read_file(file).items():
            key = _BY_NAME.get(name)
            if key is None:
                raise _bad(name, str(file), f"it knows {', '.join(_BY_NAME)}", f'unknown key "{name}"')
            settings[name] = Setting(key, _convert(key, value, str(file)), str(file))
        for key in KEYS:
            variable = variable_of(key.name)
            if variable in env:
                settings[key.name] = Setting(key, _convert(key, env[variable], variable), variable)
        return cls(settings)

    def __iter__(self) -> Any:
        return iter(self._settings.values())

    def text(self, name: str) -> str:
        """A string setting."""
        return str(self._settings[name].value)

    def number(self, name: str) -> int:
        """A whole-number setting."""
        return int(self._settings[name].value)

    def chosen(self, name: str) -> Any:
        """A setting that somebody set, or None where it is only the default."""
        return None if self._settings[name].origin == "default" else self._settings[name].value

    def seconds(self, name: str) -> float:
        """A duration setting, in seconds."""
        return float(self._settings[name].value)


def variable_of(name: str) -> str:
    """``vm.memory_mib`` is ``BANGER_VM_MEMORY_MIB``."""
    return "BANGER_" + name.upper().replace(".", "_")


def _read_file(file: Path) -> dict[str, Any]:
    try:
        text = read_regular(file).decode()
    except FileNotFoundError:
        return {}
    except OSError as error:
        cause = error.strerror or str(error)
        raise BangerError(ErrorKind.DENIED, f'cannot read "{file}"', subject=str(file), cause=cause) from error
    except UnicodeDecodeError as error:
        raise _bad("", str(file), str(error), "the file is not UTF-8") from None
    import tomllib  # noqa: PLC0415  # most commands run without a config file

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad("", str(file), str(error), "the file is not TOML") from None
    return {
        f"{section}.{name}": value
        for section, values in data.items()
        for name, value in (values.items() if isinstance(values, dict) else [("", values)])
    }


def _convert(key: Key, value: Any, origin: str) -> Any:
    wanted = type(key.default)
    try:
        if key.is_size_mib and isinstance(value, str):
            value = parse_size(value, bare=1 << 20) >> 20
        elif wanted is float and not isinstance(value, bool):
            value = float(value)
        elif wanted is int and isinstance(value, str):
            value = int(value)
    except (ValueError, BangerError) as error:
        raise _bad(key.name, origin, str(error), f'"{value}" is not a valid value for {key.name}') from None
    if not isinstance(value, wanted) or isinstance(value, bool) is not (wanted is bool):
        raise _bad(
            key.name, origin, f"it must be of type {wanted.__name__}", f'"{value}" is not a valid value for {key.name}'
        )
    if key.choices and value not in key.choices:
        raise _bad(
            key.name, origin, f"choose from {', '.join(key.choices)}", f'"{value}" is not a valid value for {key.name}'
        )
    return value


def _bad(name: str, origin: str, cause: str, message: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f"{origin}: {message}", subject=name, cause=cause, hint="banger config show")
