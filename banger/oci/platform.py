"""Platforms: ``os/architecture[/variant]`` as OCI names them, and which entry of an index fits one."""

from __future__ import annotations

import platform as host_platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from banger.core.errors import BangerError, ErrorKind

#: ``uname -m`` to OCI's architecture and variant (Go's GOARCH names, as the image specification asks for).
_MACHINES: Mapping[str, tuple[str, str]] = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}
#: What an entry without a variant means.
_DEFAULT_VARIANTS: Mapping[str, str] = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
#: Architectures whose newer variants run what was built for older ones.
_BACKWARD_COMPATIBLE = frozenset({"amd64", "arm"})
_PART = re.compile(r"[a-z0-9][a-z0-9_.]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is built for; ``variant`` may be empty."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls, machine: str = "") -> Platform:
        """The platform of this host (or of ``machine``, as ``uname -m`` says it)."""
        machine = machine or host_platform.machine()
        architecture, variant = _MACHINES.get(machine, (machine, ""))
        return cls("linux", architecture, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/arm64`` or ``linux/arm/v7``; empty means this host. Raises ``usage``."""
        if not text:
            return cls.host()
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_PART.match(part) for part in parts) or parts[0] != "linux":
            raise BangerError(
                ErrorKind.USAGE, f'"{text}" is not a platform', subject=text, hint="write linux/amd64 or linux/arm/v7"
            )
        return cls(*parts)

    @classmethod
    def of(cls, data: Any) -> Platform:
        """The platform a registry's JSON states; missing parts are empty."""
        fields = data if isinstance(data, Mapping) else {}
        parts = [fields.get(key) for key in ("os", "architecture", "variant")]
        return cls(*(part if isinstance(part, str) and _PART.match(part) else "" for part in parts))

    def rank(self, offered: Platform) -> int | None:
        """How well ``offered`` runs here: 0 is exact, higher is an older variant, ``None`` does not run."""
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return None
        wanted, got = self._level(), offered._level()
        if wanted == got:
            return 0
        if self.architecture in _BACKWARD_COMPATIBLE and None not in (wanted, got) and got < wanted:  # type: ignore[operator]
            return wanted - got  # type: ignore[operator]
        return None

    def best(self, offers: Sequence[Platform]) -> int | None:
        """The index of the best fitting offer, the first among equals; ``None`` if none fits."""
        ranked = [(rank, i) for i, offer in enumerate(offers) if (rank := self.rank(offer)) is not None]
        return min(ranked)[1] if ranked else None

    def _level(self) -> int | None:
        variant = self.variant or _DEFAULT_VARIANTS.get(self.architecture, "")
        return int(variant[1:]) if re.fullmatch(r"v\d{1,3}", variant) else None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part) or "unknown"
