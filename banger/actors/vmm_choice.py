"""Choosing the VMM driver of a VM: as it or the settings say, or the leanest one that can do what it asks for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from banger.actors.services import Vmms
from banger.core.errors import BangerError
from banger.core.ports import DEVICE_WORDS, DeviceKind, VmmDriver
from banger.core.vmm_names import AUTO
from banger.core.wire.vm_spec import VmSpec


@dataclass(frozen=True, slots=True)
class VmmChoice:
    """A driver, and why it is that one, in one line."""

    driver: VmmDriver
    reason: str


def choose_vmm(vmms: Vmms, spec: VmSpec, wanted: Collection[DeviceKind], kernel_digest: str = "") -> VmmChoice:
    """The driver for a machine with the ``wanted`` kinds of devices. Whether it has them is not said by its choice.

    Raises:
        BangerError: ``usage`` for a driver that there is not.
    """
    if spec.vmm:
        return VmmChoice(vmms.drivers.named(spec.vmm), "--vmm asks for it")
    if vmms.setting != AUTO:
        return VmmChoice(vmms.drivers.default, "vmm.driver is set")
    against = []
    for driver in vmms.drivers:
        if driver is vmms.drivers.default:
            continue
        obstacle = _obstacle(driver, spec, wanted, kernel_digest)
        if not obstacle:
            return VmmChoice(driver, "it is installed, KVM is proven, and it can do what the VM asks for")
        against.append(f"not {driver.name}: {obstacle}")
    return VmmChoice(vmms.drivers.default, "; ".join(against))


def lacking(driver: VmmDriver, wanted: Collection[DeviceKind]) -> str:
    """The first kind of device that it cannot give, in words; empty if it can give all."""
    return next((words for kind, words in DEVICE_WORDS.items() if kind in wanted and kind not in driver.devices), "")


def _obstacle(driver: VmmDriver, spec: VmSpec, wanted: Collection[DeviceKind], kernel_digest: str) -> str:
    """Why not this one; what costs most to find out is asked last."""
    try:
        driver.options(spec)
    except BangerError as error:
        return error.message
    if words := lacking(driver, wanted):
        return f"it cannot give it {words}"
    return driver.obstacle(kernel_digest)
