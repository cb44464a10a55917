"""A machine's configuration as the file that Firecracker starts from. Pure: touches no file and starts nothing.

The objects are those of the API (Firecracker: ``src/firecracker/swagger/firecracker.yaml``), under the names that
``--config-file`` gives them. Unknown fields are refused, so none is written that the oldest version does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import AGENT_SOCKET, Drive, TapNic, VmmConfig
from banger.vmm.firecracker.metrics import metrics_file

#: The option that the driver makes of the settings: what is masked of the host's CPU.
CPU_TEMPLATE = "cpu_template"
#: Templates that Firecracker has built in; any other is a file.
CPU_TEMPLATES = ("C3", "T2", "T2S", "T2CL", "T2A")
#: In the directory of a machine's sockets, that of its API.
API_SOCKET = "fc.sock"
#: The most that Firecracker gives a guest.
MOST_CPUS = 32
#: The longest command line that it passes on, in bytes.
_MOST_ARGUMENTS = 2048
#: The guest's address on its vsock; every machine has one of its own, so that all may have the same.
_GUEST_CID = 3
_AS_THEY_ARE: Mapping[Path, Path] = MappingProxyType({})

#: A reset by the keyboard controller is the one thing that ends the machine, which ``panic=-1`` asks for at once. That
#: controller has a keyboard and nothing else, and the machine has one serial port.
_KERNEL_ARGUMENTS = "console=ttyS0 reboot=k panic=-1 8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd"


def configuration(config: VmmConfig, where: Mapping[Path, Path] = _AS_THEY_ARE) -> dict[str, Any]:
    """What to start ``config`` from.

    Args:
        config: the machine.
        where: under which paths Firecracker finds files, and the directory of its sockets, if not under their own.

    Raises:
        BangerError: ``usage`` for a device that Firecracker does not have, and for too long a command line.
    """
    drives = [device for device in config.devices if isinstance(device, Drive)]
    cards = [device for device in config.devices if isinstance(device, TapNic)]
    if len(drives) + len(cards) < len(config.devices):
        message = f'Firecracker cannot give VM "{config.name}" a device that it wants'
        raise BangerError(ErrorKind.USAGE, message, subject=config.name, hint="--vmm qemu")
    template = config.options.get(CPU_TEMPLATE, "")

    def found(path: Path) -> str:
        return str(where.get(path, path))

    whole: dict[str, Any] = {
        "boot-source": {
            "kernel_image_path": found(config.kernel),
            "initrd_path": found(config.initrd),
            "boot_args": kernel_arguments(config),
        },
        "machine-config": {"vcpu_count": config.cpus, "mem_size_mib": config.memory_mib},
        "drives": [_drive(one, found(one.path)) for one in drives],
        "network-interfaces": list(_cards(cards)),
        "vsock": {"guest_cid": _GUEST_CID, "uds_path": f"{found(config.run_dir)}/{AGENT_SOCKET}"},
        "entropy": {},
        "metrics": {"metrics_path": found(metrics_file(config.vmm_log))},
    }
    if template in CPU_TEMPLATES:
        whole["machine-config"]["cpu_template"] = template
    elif template:
        whole["cpu-config"] = found(Path(template))
    return whole


def form_of(whole: Mapping[str, Any]) -> str:
    """What two configurations have in common if one machine can go on as the other. Pure.

    ``whole`` is as :func:`configuration` makes it, or as Firecracker tells it of a machine (``GET /vm/config``). Paths
    are those that Firecracker opens again, wherever it does. It tells the devices of a machine that was loaded in any
    order: where the guest has each is saved with the machine.
    """
    drives = sorted([one["drive_id"], one["path_on_host"], one["is_read_only"]] for one in whole.get("drives", ()))
    cards = sorted(one["iface_id"] for one in whole.get("network-interfaces", ()))
    vsock = (whole.get("vsock") or {}).get("uds_path", "")
    form = {"cpus": whole["machine-config"]["vcpu_count"], "drives": drives, "cards": cards, "vsock": vsock}
    return json.dumps(form)


def tap_overrides(config: VmmConfig) -> list[dict[str, str]]:
    """The taps of a machine that goes on as another one. Pure."""
    cards = _cards(device for device in config.devices if isinstance(device, TapNic))
    return [{"iface_id": one["iface_id"], "host_dev_name": one["host_dev_name"]} for one in cards]


def kernel_arguments(config: VmmConfig) -> str:
    """What the guest wants plus what the machine needs."""
    words = " ".join(filter(None, (_KERNEL_ARGUMENTS, config.cmdline)))
    if len(words.encode()) > _MOST_ARGUMENTS - 256:  # Firecracker adds its own
        raise BangerError(
            ErrorKind.USAGE, f'the kernel arguments of VM "{config.name}" are too long for Firecracker',
            subject=config.name, cause=f"{len(words)} bytes", hint="--vmm qemu",
        )  # fmt: skip
    return words


def _drive(drive: Drive, path: str) -> dict[str, Any]:
    """A disk. What the guest has synced to a writable one, it has: its flush is the host's ``fsync``."""
    return {
        "drive_id": drive.label,
        "path_on_host": path,
        "is_root_device": False,  # the initrd finds it
        "is_read_only": drive.read_only,
        "cache_type": "Unsafe" if drive.read_only else "Writeback",
    }


def _cards(cards: Iterable[TapNic]) -> Iterable[dict[str, Any]]:
    for index, card in enumerate(cards):
        yield {"iface_id": f"eth{index}", "host_dev_name": card.tap, "guest_mac": card.mac}
