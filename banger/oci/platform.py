"""Platforms: ``os/architecture[/variant]`` as OCI names them, and matching entries of an index."""

from __future__ import annotations

import platform as host_platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from banger.core.errors import BangerError, ErrorKind

#: Other names of an architecture to OCI's own and the variant that the name implies. OCI has Go's GOARCH names; the
#: others are those of ``uname -m``, of Debian and of builders, as containerd's ``platforms.Normalize`` reads them too.
_SYNONYMS: Mapping[str, tuple[str, str]] = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "x64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5": ("arm", "v5"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "armv6": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "armv6hf": ("arm", "v6"),
    "armv7": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv7hf": ("arm", "v7"),
    "armv8": ("arm64", ""),
    "armv8l": ("arm", "v8"),
    "ppc64el": ("ppc64le", ""),
    "mips64el": ("mips64le", ""),
    "loongarch64": ("loong64", ""),
}
#: Variants that only repeat what the architecture alone says.
_PLAIN_VARIANTS = frozenset({("amd64", "v1"), ("arm64", "v8")})
#: What a lone word of ``--platform`` is read as; anything else might be a typing error.
_ARCHITECTURES = frozenset({"amd64", "arm64", "arm", "386", "riscv64", "ppc64le", "s390x", "loong64", "mips64le"})
#: What an entry without a variant means.
_DEFAULT_VARIANTS: Mapping[str, str] = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
#: Architectures whose newer variants run what was built for older ones.
_BACKWARD_COMPATIBLE = frozenset({"amd64", "arm"})
_PART = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is built for, in OCI's own names; ``variant`` may be empty."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def host(cls, machine: str = "") -> Platform:
        """The platform of this host (or of ``machine``, as ``uname -m`` says it)."""
        return cls.named("linux", machine or host_platform.machine())

    @classmethod
    def named(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """The platform that somebody's words mean, whatever case and synonyms they prefer."""
        os, architecture, variant = os.lower(), architecture.lower(), variant.lower()
        architecture, implied = _SYNONYMS.get(architecture, (architecture, ""))
        # "8", "v8", "v8.0" and "armv8" are one, and who does not know does not say.
        variant = implied or re.sub(r"\A(?:arm)?v?(?=\d)", "v", variant).removesuffix(".0")
        variant = "" if variant == "unknown" else variant
        if (architecture, variant) in _PLAIN_VARIANTS or architecture == "386":
            variant = ""
        return cls(os, architecture, variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``linux/arm64``, ``linux/arm/v7``, ``arm64`` or ``linux``; empty means this host. Raises ``usage``."""
        words = text.lower().split("/")
        if words in ([""], ["linux"]):
            return cls.host()
        if len(words) == 1:
            words = ["linux", *words]
            known = cls.named(*words).architecture in _ARCHITECTURES
        else:
            known = len(words) <= 3 and words[0] == "linux"
        if not known or not all(_PART.match(word) for word in words):
            hint = "write linux/amd64 or linux/arm/v7"
            raise BangerError(ErrorKind.USAGE, f'"{text}" is not a platform', subject=text, hint=hint)
        return cls.named(*words)

    @classmethod
    def of(cls, data: Any) -> Platform:
        """The platform a registry's JSON states; missing parts are empty, but a missing system is Linux."""
        fields = data if isinstance(data, Mapping) else {}
        values = [fields.get(key) or "" for key in ("os", "architecture", "variant")]
        parts = [part if isinstance(part, str) and _PART.match(part.lower()) else "" for part in values]
        if not values[0] and parts[1]:
            parts[0] = "linux"
        return cls.named(*parts)

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
