"""The registry of VMM drivers. A new one needs a line here, its name in :mod:`banger.core.vmm_names`, and a package."""

from __future__ import annotations

from banger.config import Config
from banger.core.drivers import Drivers
from banger.core.ports import VmmDriver
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm.qemu.driver import QemuDriver


def all_drivers(config: Config, layout: Layout, launching: Launching) -> Drivers[VmmDriver]:
    """Every driver; the default is as ``vmm.driver`` says. Raises ``usage`` for one that there is not."""
    drivers: tuple[VmmDriver, ...] = (QemuDriver(config, layout, launching),)
    return Drivers("VMM driver", drivers, config.text("vmm.driver"))
