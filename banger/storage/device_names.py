"""The names of a VM's block devices: predictable, so that each can be found after a crash."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ID = r"[0-9a-z]+"


@dataclass(frozen=True, slots=True)
class DeviceNames:
    """Names of one VM's devices. None is longer than the 63 bytes that a loop device keeps of a name."""

    installation_id: str
    vm_id: str

    @property
    def snapshot(self) -> str:
        """The device-mapper device that the VM gets: its root file system."""
        return self._name("root")

    @property
    def origin(self) -> str:
        """The device-mapper device below: the image, and zeros after it."""
        return self._name("base")

    @property
    def image_loop(self) -> str:
        """The loop device that shows the image."""
        return self._name("image")

    @property
    def changes_loop(self) -> str:
        """The loop device that shows the file with the VM's changes."""
        return self._name("cow")

    def _name(self, part: str) -> str:
        return f"banger-{self.installation_id}-{self.vm_id}-{part}"


def vm_of(name: str, installation_id: str) -> str:
    """The id of the VM that a device's name tells; empty for what is not of this installation."""
    match = re.fullmatch(rf"banger-{re.escape(installation_id)}-({_ID})-(?:root|base|image|cow)", name)
    return match[1] if match else ""
