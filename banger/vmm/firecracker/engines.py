"""What Firecracker's machines run on: KVM and nothing else."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from banger.config import Config
from banger.core.errors import BangerError
from banger.core.ports import Engine, Engines
from banger.core.vmm_names import EMULATED, HARDWARE

KVM_DEVICE = Path("/dev/kvm")
_REASON = "Firecracker runs on nothing else"


class FirecrackerEngines:
    """Implements :class:`banger.core.ports.Engines`. What is known of the host's KVM, QEMU's engines have found out."""

    def __init__(self, config: Config, proof: Engines) -> None:
        """``proof`` tests KVM, and remembers which kernels came up on it."""
        self._config = config
        self._proof = proof

    def choose(self, wish: str, kernel_digest: str) -> Engine:  # noqa: ARG002  # there is no choice
        """KVM, with the pace that a kernel must keep which was never seen on it."""
        try:
            known = self._proof.choose("", kernel_digest)
        except BangerError:  # there is no QEMU to try it with
            return Engine(HARDWARE, _REASON, forced=True)
        if known.accelerator != HARDWARE:
            return Engine(HARDWARE, _REASON, forced=True)
        return replace(known, reason=_REASON, forced=True)

    def obstacle(self, kernel_digest: str) -> str:
        """Why machines with that kernel should not be given to Firecracker; empty if nothing is known against it."""
        if self._config.text("vmm.accelerator") == EMULATED:
            return f"vmm.accelerator is {EMULATED}, and it has no emulation"
        if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
            return f"it needs {KVM_DEVICE}"
        try:
            known = self._proof.choose("", kernel_digest)
        except BangerError:
            return ""
        return "" if known.accelerator == HARDWARE else known.reason

    def instead_of(self, engine: Engine, reason: str) -> Engine | None:  # noqa: ARG002
        """Nothing."""
        return None

    def keep(self, kernel_digest: str, reason: str = "") -> None:
        """See :class:`banger.core.ports.Engines`."""
        with suppress(BangerError):  # there is no QEMU, whose findings they are
            self._proof.keep(kernel_digest, reason)

    def forget(self, kernel_digest: str) -> None:
        """See :class:`banger.core.ports.Engines`."""
        with suppress(BangerError):  # there is no QEMU, whose findings they are
            self._proof.forget(kernel_digest)
