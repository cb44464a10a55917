"""Forwarders that end under their VMs: whoever starts them again hears of it at once, and not by the next look."""

from __future__ import annotations

import time
from collections.abc import Callable

from banger.core.models import ProcessIdentity
from banger.vmm.watcher import ExitWatcher

#: One that ends again so soon is left to the next look: something is wrong with it.
_REST_S = 30.0


class Endings:
    """Watches the forwarders of running VMs, in a thread of its own."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        """``tell`` takes the VM's id; called in that thread."""
        self._tell = tell
        self._told: dict[str, float] = {}  # by VM: when
        self._watcher = ExitWatcher(self._ended)

    def watch(self, vm_id: str, forwarder: ProcessIdentity) -> None:
        """Tell when it ends; at once if it has."""
        self._watcher.watch(vm_id, forwarder)

    def unwatch(self, vm_id: str) -> None:
        """It is about to be ended."""
        self._watcher.unwatch(vm_id)

    def close(self) -> None:
        """Watch none any more. They go on."""
        self._watcher.close()

    def _ended(self, vm_id: str, _forwarder: ProcessIdentity, _status: int | None) -> None:
        now = time.monotonic()
        if now - self._told.get(vm_id, -_REST_S) >= _REST_S:
            self._told[vm_id] = now
            self._tell(vm_id)
