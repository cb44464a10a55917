"""Which crash points the daemon of a real VM comes by, for tests that let it die there."""

from __future__ import annotations

from collections.abc import Collection

from banger.core import crashpoints
from tests.support.soak import IS_SOAK

#: By the command that comes by them.
_PREFIXES = {
    "create": ("vm.create:",),
    "start": ("vm.start:", "namespace.open:", "tap.prepare:", "ports.prepare:"),
    "stop": ("vm.stop:", "vm.down:", "tap.cleanup:", "ports.cleanup:"),
    "delete": ("vm.delete:",),
    "suspend": ("vm.suspend:", "vm.save:standing"),
    "fork": ("vm.save:", "vm.fork:", "vm.restore:", "vm.keep:"),
}
#: For the short form: where something is on the host that was only intended, or is gone and was not struck out.
_FEW = (
    "vm.create:disk-made",
    "namespace.open:held",
    "vm.start:process-spawned",
    "vm.down:process-gone",
    "vm.delete:torn-down",
    "vm.save:standing",
    "vm.suspend:saved",
    "vm.restore:machine-loaded",
    "vm.fork:made",
)


def points_of(command: str, not_here: Collection[str]) -> list[str]:
    """Those of a command, without those ``not_here`` (or that begin so): all in the long form, a few in the short one."""
    points = [one for one in crashpoints.all_points() if one.startswith(_PREFIXES[command])]
    points = [one for one in points if not one.startswith(tuple(not_here))]
    return points if IS_SOAK else [one for one in points if one in _FEW]
