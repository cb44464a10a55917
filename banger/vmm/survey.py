"""The state of the configured VMM driver on this host, without a daemon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from banger.config import Config
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
    return _PROBES[config.text("vmm.driver")](layout, config)


def engines(layout: Layout, config: Config) -> Engines:
    """What its machines may run on."""
    return _ENGINES[config.text("vmm.driver")](layout, config)


def _qemu_accelerator(layout: Layout, config: Config) -> Accelerator:
    from banger.vmm.qemu import probe  # noqa: PLC0415  # only what is asked for is loaded

    return probe.accelerator(layout, config)


def _qemu_engines(layout: Layout, config: Config) -> Engines:
    from banger.vmm.qemu.engines import QemuEngines  # noqa: PLC0415  # as above

    return QemuEngines(config, layout)


_PROBES: dict[str, Callable[[Layout, Config], Accelerator]] = {"qemu": _qemu_accelerator}
_ENGINES: dict[str, Callable[[Layout, Config], Engines]] = {"qemu": _qemu_engines}
