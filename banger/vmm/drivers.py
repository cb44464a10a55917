"""The registry of VMM drivers. A new one needs a line here, its name in :mod:`banger.core.vmm_names`, and a package."""

from __future__ import annotations

from banger.config import Config
from banger.core.drivers import Drivers
from banger.core.ports import VmmDriver
from banger.core.vmm_names import AUTO, QEMU
from banger.launch import Launching
from banger.layout import Layout
from banger.vmm.firecracker.driver import FirecrackerDriver
from banger.vmm.qemu.driver import QemuDriver


def all_drivers(config: Config, layout: Layout, launching: Launching) -> Drivers[VmmDriver]:
    """Every driver; the default is as ``vmm.driver`` says, and where that is ``auto``, the one that can do most."""
    qemu = QemuDriver(config, layout, launching)
    drivers: tuple[VmmDriver, ...] = (qemu, FirecrackerDriver(config, layout, launching, qemu.engines))
    setting = config.text("vmm.driver")
    return Drivers("VMM driver", drivers, QEMU if setting == AUTO else setting)
