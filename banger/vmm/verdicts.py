"""Which kernels have come up on KVM here, and which have not: what the next start of each goes by.

A verdict holds for this boot of the host, its kernel, this VMM and this model of CPU, and is kept in the cache
directory. Daemons of one user may share it; the last who writes is believed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

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
        self._file = file
        self._circumstances = list(circumstances)

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
                self._save({**reasons, digest: verdict.reason})

    def forget(self, digest: str) -> None:
        """Have the next start of this kernel prove it anew."""
        with _lock:
            reasons = self._load()
            if reasons.pop(digest, None) is not None:
                self._save(reasons)

    def _load(self) -> dict[str, str]:
        """Reasons by digest; anything unreadable counts as none."""
        try:
            data: Any = json.loads(self._file.read_text())
            if data["circumstances"] != self._circumstances:
                return {}
            return {str(digest): str(reason) for digest, reason in data["kernels"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _save(self, reasons: dict[str, str]) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"circumstances": self._circumstances, "kernels": reasons}, indent=1))
        fresh.replace(self._file)


@cache
def cpu_model() -> str:
    """The model of the host's CPU as its kernel names it (``model name`` in ``/proc/cpuinfo``), or empty."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""
