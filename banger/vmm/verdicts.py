"""Which kernels have booted on KVM here, and which have not; used by the next start of each.

A verdict holds for this boot of the host, its kernel, this VMM and this model of CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from banger.vmm.findings_cache import FindingsCache

_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class KernelVerdict:
    """``reason`` says why a kernel does not run on KVM here; empty: it does."""

    reason: str = ""

    @property
    def runs(self) -> bool:
        """True if the kernel was seen to come up."""
        return not self.reason


class KernelVerdicts:
    """The kept verdicts, by digest of the kernel."""

    def __init__(self, file: Path, circumstances: Sequence[str]) -> None:
        """Read and write ``file``; what was found under other ``circumstances`` counts as nothing."""
        self._kept = FindingsCache(file, circumstances, "kernels")

    def get(self, digest: str) -> KernelVerdict | None:
        """What is known of a kernel; ``None`` if it was never tried here."""
        with _lock:
            reason = self._load().get(digest)
        return None if reason is None else KernelVerdict(reason)

    def put(self, digest: str, verdict: KernelVerdict) -> None:
        """Keep a verdict."""
        with _lock:
            reasons = self._load()
            if reasons.get(digest) != verdict.reason:
                self._kept.save({**reasons, digest: verdict.reason})

    def forget(self, digest: str) -> None:
        """Have the next start of this kernel prove it anew."""
        with _lock:
            reasons = self._load()
            if reasons.pop(digest, None) is not None:
                self._kept.save(reasons)

    def _load(self) -> dict[str, str]:
        """Reasons by digest."""
        return {str(digest): str(reason) for digest, reason in self._kept.load().items()}


@cache
def cpu_model() -> str:
    """The model of the host's CPU as its kernel names it (``model name`` in ``/proc/cpuinfo``), or empty."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""
