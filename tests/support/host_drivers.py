"""Owners over this host's real network and disks: for crashes at every point, with a kernel that remembers.

``CRASH_DRIVERS`` in the environment names them, so that a whole test module can be run over them in a process of its
own (in a network namespace, in a test host) without knowing.
"""

from __future__ import annotations

import os
from pathlib import Path

from banger.core.ports import Capability
from banger.core.wire.port_forward import PortForward
from banger.network.place import HostPlace
from banger.network.tap import TapNetwork
from tests.support.fake_vmm import FakeFirecracker, FakeVmm
from tests.support.fakes import World

INSTALLATION = "c0ffee123456"
#: The machines of a world are Firecracker's if the name of its directory ends so.
FIRECRACKER = "-firecracker"
NAMES = frozenset(os.environ.get("CRASH_DRIVERS", "").split())


def crash_world(home: Path) -> World:
    """A world whose machines are stand-ins and whose host is real as far as ``CRASH_DRIVERS`` says."""
    vmm = FakeFirecracker if home.name.endswith(FIRECRACKER) else FakeVmm
    return World(home, vmm(units=home / "units"), capabilities=_capabilities)


def network() -> str:
    """What a VM of such a world asks for."""
    return "tap" if "tap" in NAMES else "user"


def published() -> tuple[PortForward, ...]:
    """What it publishes: a port that takes a forwarder."""
    return () if "tap" in NAMES else (PortForward(80),)


def _capabilities(world: World) -> tuple[Capability, ...]:
    if "tap" not in NAMES:
        return ()
    tap = TapNetwork(
        INSTALLATION,
        HostPlace(world.layout.data / "network.json"),
        world.ledger.all,
        world.publisher,
    )
    return (tap,)
