"""The facts about this host that catalog entries depend on."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from banger.core.errors import BangerError
from banger.oci.platform import Platform
from banger.posix.files import text_or_empty

_OS_RELEASE = Path("/etc/os-release")
#: ``uname -m`` to Debian's names, where they differ from it.
_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "i386", "armv7l": "armhf", "ppc64le": "ppc64el"}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What matters here.

    Attributes:
        distribution: ``ID`` of ``/etc/os-release``: ``debian``, ``ubuntu``, ``fedora``.
        machine: as ``uname -m`` prints it.
        can_bootstrap: mmdebstrap and apt are installed.
    """

    distribution: str
    machine: str
    can_bootstrap: bool

    @classmethod
    def probe(cls) -> HostFacts:
        """Look at this host."""
        can_bootstrap = all(shutil.which(program) for program in ("mmdebstrap", "apt-get"))
        return cls(_distribution(), platform.machine(), can_bootstrap)

    def runs(self, wanted: str) -> bool:
        """True if what is made for the platform ``wanted`` runs here; False also for what is no platform."""
        try:
            return Platform.host(self.machine).rank(Platform.parse(wanted)) is not None
        except BangerError:
            return False

    @property
    def debian_architecture(self) -> str:
        """What Debian calls this architecture."""
        return _DEBIAN_ARCHITECTURES.get(self.machine, self.machine)


def _distribution() -> str:
    lines = text_or_empty(_OS_RELEASE).splitlines()
    return next((line.removeprefix("ID=").strip("\"'") for line in lines if line.startswith("ID=")), "")
