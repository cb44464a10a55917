"""The state of the configured VMM driver on this host, without a daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.vmm_names import AUTO, FIRECRACKER, HARDWARE, QEMU
from banger.layout import Layout

if TYPE_CHECKING:
    from banger.core.ports import Engines

#: The longest name of a socket that a driver makes in a VM's run directory.
LONGEST_SOCKET = "qmp.sock"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What machines run on.

    Attributes:
        name: one of :data:`banger.core.vmm_names.ACCELERATORS`.
        reason: why, in one line for people.
        hint: what to type to get hardware, or empty.
    """

    name: str
    reason: str
    hint: str = ""


def accelerator(layout: Layout, config: Config) -> Accelerator:
    """What machines run on here, as configured or as proven by running one. Raises ``unavailable`` without a VMM."""
    return _PROBES[_driver(config)](layout, config)


def engines(layout: Layout, config: Config) -> Engines:
    """What its machines may run on."""
    return _ENGINES[_driver(config)](layout, config)


def _driver(config: Config) -> str:
    """The one that is set, or else the one whose machines run on everything that there is."""
    setting = config.text("vmm.driver")
    return QEMU if setting == AUTO else setting


def _qemu_accelerator(layout: Layout, config: Config) -> Accelerator:
    from banger.vmm.qemu import probe  # noqa: PLC0415  # only what is asked for is loaded

    return probe.accelerator(layout, config)


def _qemu_engines(layout: Layout, config: Config) -> Engines:
    from banger.vmm.qemu.engines import QemuEngines  # noqa: PLC0415  # as above

    return QemuEngines(config, layout)


def _firecracker_accelerator(layout: Layout, config: Config) -> Accelerator:
    """KVM, or why not. It is QEMU that tries it."""
    from banger.vmm.qemu import probe  # noqa: PLC0415  # as above

    found = probe.accelerator(layout, config)
    if found.name == HARDWARE:
        return found
    raise BangerError(
        ErrorKind.UNAVAILABLE, "Firecracker runs on KVM alone", cause=found.reason,
        hint=found.hint or "set vmm.driver to auto, or to qemu",
    )  # fmt: skip


def _firecracker_engines(layout: Layout, config: Config) -> Engines:
    from banger.vmm.firecracker.engines import FirecrackerEngines  # noqa: PLC0415  # as above

    return FirecrackerEngines(config, _qemu_engines(layout, config))


_PROBES: dict[str, Callable[[Layout, Config], Accelerator]] = {
    QEMU: _qemu_accelerator,
    FIRECRACKER: _firecracker_accelerator,
}
_ENGINES: dict[str, Callable[[Layout, Config], Engines]] = {QEMU: _qemu_engines, FIRECRACKER: _firecracker_engines}
