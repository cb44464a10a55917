"""The loop and device-mapper devices of this installation on the host, for leak checks."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from functools import partial

from banger.core.ports import HostObject
from banger.layout import Layout
from banger.storage.device_mapper import DeviceMapper
from banger.storage.device_names import vm_of
from banger.storage.loop_devices import LoopDevice, LoopDevices
from banger.storage.snapshot_files import SnapshotFiles


class StorageObjects:
    """Call it to look."""

    def __init__(
        self,
        layout: Layout,
        installation_id: str,
        mapper: DeviceMapper | None = None,
        loops: LoopDevices | None = None,
    ) -> None:
        self._layout = layout
        self._installation_id = installation_id
        self._mapper = mapper or DeviceMapper()
        self._loops = loops or LoopDevices()

    def __call__(self) -> list[HostObject]:
        """Everything, users before what they use: snapshots, what they are taken of, loop devices."""
        named = {name: vm_of(name, self._installation_id) for name in self._mapper.devices()}
        # "root" comes after "base" in the alphabet, and has to go first.
        devices = [self._device(name, vm_id) for name, vm_id in sorted(named.items(), reverse=True) if vm_id]
        return devices + [found for loop in self._loops.all() if (found := self._loop(loop))]

    def _device(self, name: str, vm_id: str) -> HostObject:
        def remove() -> None:
            try:
                self._mapper.remove(name)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise

        return HostObject("dm", name, vm_id, f"part of the disk of the VM {vm_id}", remove, self._since(vm_id))

    def _loop(self, loop: LoopDevice) -> HostObject | None:
        """None for what is not ours: neither its name nor its file tells so."""
        clear: Callable[[], None] = partial(self._loops.clear, loop)
        if vm_id := vm_of(loop.name, self._installation_id):
            reason = f"{loop.path} shows {loop.file} to the VM {vm_id}"
            return HostObject("loop", loop.name, vm_id, reason, clear, self._since(vm_id))
        data = str(self._layout.data)
        if not loop.file.startswith(f"{data}/"):
            return None
        match = re.match(r"/vms/([^/]+)/", loop.file[len(data) :])
        reason = f"somebody attached {loop.file} to {loop.path} by hand"
        return HostObject("loop", str(loop.path), match[1] if match else "", reason, clear)

    def _since(self, vm_id: str) -> float:
        return SnapshotFiles(self._layout.vm_dir(vm_id)).touched_at()
