"""Which machines a check-up tries, and why it skips the others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from banger.core.vmm_names import ACCELERATORS, EMULATED, HARDWARE


@dataclass(frozen=True, slots=True)
class AcceleratorOutlook:
    """One accelerator on this host.

    Attributes:
        usable: VMs should run on it.
        reason: why, or why not.
        hint: what to type to get it.
    """

    accelerator: str
    usable: bool
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine to try (``prospect.usable``) or to explain."""

    prospect: AcceleratorOutlook
    driver: str
    network: str


def prospects(found: str, reason: str, hint: str, setting: str) -> list[AcceleratorOutlook]:
    """What to expect of each accelerator.

    Args:
        found: the accelerator that VMs that ask for nothing get here.
        reason: why it is that one, in the words of the probe.
        hint: what to type to get KVM; may be empty.
        setting: ``vmm.accelerator``; other than ``auto``, nothing else is tried.
    """
    if setting != "auto":
        other = f"not tried: vmm.accelerator is {setting}"
        return [
            AcceleratorOutlook(name, name == setting, reason if name == setting else other) for name in ACCELERATORS
        ]
    emulated = AcceleratorOutlook(EMULATED, usable=True, reason="works wherever the VMM does")
    if found == HARDWARE:
        return [AcceleratorOutlook(HARDWARE, usable=True, reason=reason), emulated]
    return [AcceleratorOutlook(HARDWARE, usable=False, reason=reason, hint=hint), emulated]


def candidates(found: Sequence[AcceleratorOutlook], drivers: Sequence[str], networks: Sequence[str]) -> list[Candidate]:
    """Every accelerator with every driver and network; one that is not usable is named once a driver."""
    return [
        Candidate(prospect, driver, network)
        for driver in drivers
        for prospect in found
        for network in (networks if prospect.usable else networks[:1])
    ]
