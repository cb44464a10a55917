"""Choosing the engine of a machine, by what is known of the host's KVM and of that kernel on it."""

from __future__ import annotations

import os

from banger.config import Config
from banger.core.boot_pace import BootPace
from banger.core.ports import Engine
from banger.layout import Layout
from banger.vmm.identity import current_boot_id
from banger.vmm.qemu import probe
from banger.vmm.qemu.binary import find_binary
from banger.vmm.verdicts import KernelVerdict, KernelVerdicts, cpu_model

#: What emulation needs until a guest's first program runs, and until it is up, in pieces of the proof guest's work
#: (measured: Debian's cloud kernel 6.1 as a bzImage, banger's toolbox, one CPU).
_INIT_CHUNKS, _READY_CHUNKS = 300, 450
#: A piece of work takes at least so long in the sums, in seconds: fast hosts have slow moments too.
_LEAST_CHUNK_S = 0.004
#: How much worse than emulation KVM may look before it is given up.
_SLACK = 3.0


class QemuEngines:
    """Implements :class:`banger.core.ports.Engines` for QEMU."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self._config = config
        self._layout = layout

    def choose(self, wish: str, kernel_digest: str) -> Engine:
        """See :class:`banger.core.ports.Engines`; runs the proof guests if that was not done since the host booted.

        Raises:
            BangerError: ``unavailable`` if there is no QEMU.
        """
        wish = wish or self._config.text("vmm.accelerator")
        if wish == "tcg":
            return _emulated("emulation is asked for", forced=True)
        if wish == "kvm":
            return Engine("kvm", "KVM is asked for", forced=True, pace=self._pace())
        found = probe.accelerator(self._layout, self._config)
        if found.name != "kvm":
            return _emulated(found.reason)
        known = self._verdicts().get(kernel_digest)
        if known is None:
            return Engine("kvm", found.reason, pace=self._pace())
        if known.runs:
            return Engine("kvm", found.reason)
        return _emulated(f"this kernel did not come up on KVM here: {known.reason}")

    def instead_of(self, engine: Engine, reason: str) -> Engine | None:
        """Emulation, unless it is that which failed, or KVM was asked for."""
        return None if engine.forced or engine.is_emulated else _emulated(reason)

    def keep(self, kernel_digest: str, reason: str = "") -> None:
        """See :class:`banger.core.ports.Engines`."""
        self._verdicts().put(kernel_digest, KernelVerdict(reason))

    def forget(self, kernel_digest: str) -> None:
        """See :class:`banger.core.ports.Engines`."""
        self._verdicts().forget(kernel_digest)
        probe.forget_kvm(self._layout)

    def _pace(self) -> BootPace:
        chunk_s = max(_LEAST_CHUNK_S, probe.emulated_chunk_s(self._layout))
        init_s, ready_s = _INIT_CHUNKS * chunk_s, _READY_CHUNKS * chunk_s
        return BootPace(silence_s=init_s, init_s=init_s * _SLACK, ready_s=ready_s * _SLACK, emulated_s=ready_s)

    def _verdicts(self) -> KernelVerdicts:
        binary = find_binary()
        circumstances = (current_boot_id(), os.uname().release, binary.path, binary.version, cpu_model())
        return KernelVerdicts(self._layout.cache / "kernels-on-kvm.json", circumstances)


def _emulated(reason: str, *, forced: bool = False) -> Engine:
    return Engine("tcg", reason, forced=forced, is_emulated=True)
