"""Whether guests really run on KVM here. That ``/dev/kvm`` opens proves nothing, so a guest is run on it.

A verdict holds for this boot, this kernel and this QEMU and is kept in the cache directory; access to the device is
looked at every time, because it may be granted meanwhile.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.vmm.identity import current_boot_id
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.binary import find_binary
from banger.vmm.qemu.proof import Proof, prove

KVM_DEVICE = Path("/dev/kvm")
#: Seconds that the proof guest may take; it needs a quarter of one.
_KVM_TIMEOUT_S = 3.0
_TCG_TIMEOUT_S = 20.0

_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What machines run on.

    Attributes:
        name: ``kvm`` or ``tcg`` (software emulation).
        reason: why, in one line for people.
        hint: what to type to get KVM, or empty.
    """

    name: str
    reason: str
    hint: str = ""


def accelerator(layout: Layout, config: Config, *, again: bool = False) -> Accelerator:
    """What machines run on here, as configured or as proven.

    Args:
        layout: says where verdicts are kept.
        config: ``vmm.accelerator`` decides unless it is ``auto``.
        again: prove it anew, whatever the cache says.

    Raises:
        BangerError: ``unavailable`` if there is no QEMU to prove it with.
    """
    wish = config.text("vmm.accelerator")
    if wish != "auto":
        return Accelerator(wish, "vmm.accelerator is set")
    obstacle = _obstacle(KVM_DEVICE)
    if obstacle is not None:
        return obstacle
    proof = _proof(layout, "kvm", _KVM_TIMEOUT_S, again=again)
    if proof.works:
        return Accelerator("kvm", "a test guest ran on it")
    return Accelerator("tcg", f"KVM does not run guests here: {proof.reason}")


def tsc_khz(layout: Layout) -> int:
    """Rate of the time stamp counter that emulated guests see, in kHz; a guest's clock is as right as this is.

    Raises:
        BangerError: ``unavailable`` if emulation does not work either.
    """
    proof = _proof(layout, "tcg", _TCG_TIMEOUT_S)
    if not proof.works:
        raise BangerError(
            ErrorKind.UNAVAILABLE, "QEMU cannot emulate a machine here", cause=proof.reason, hint="banger doctor"
        )
    return proof.tsc_khz


def _obstacle(device: Path) -> Accelerator | None:
    """The answer without any proof, if the device is not there or not for us."""
    if not device.exists():
        return Accelerator("tcg", f"there is no {device}", "modprobe kvm-intel || modprobe kvm-amd")
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"no permission for {device}", "sudo usermod -aG kvm $USER, then log in again")
    return None


def _proof(layout: Layout, name: str, timeout_s: float, *, again: bool = False) -> Proof:
    binary = find_binary()
    file = layout.cache / "proofs.json"
    with _lock:
        proofs = _load(file, _circumstances(binary))
        if again or name not in proofs:
            proofs[name] = prove(binary, name, timeout_s)
            # A guest that was too slow may have met a busy host: that is no verdict to keep.
            if proofs[name].works or name == "kvm":
                _save(file, _circumstances(binary), proofs)
        return proofs[name]


def _circumstances(binary: Binary) -> list[str]:
    return [current_boot_id(), os.uname().release, binary.path, binary.version]


def _load(file: Path, circumstances: list[str]) -> dict[str, Proof]:
    """The kept proofs if they were made under these circumstances; anything unreadable counts as none."""
    try:
        data: Any = json.loads(file.read_text())
        if data["circumstances"] != circumstances:
            return {}
        return {name: Proof(**fields) for name, fields in data["proofs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _save(file: Path, circumstances: list[str], proofs: dict[str, Proof]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = {"circumstances": circumstances, "proofs": {name: asdict(proof) for name, proof in proofs.items()}}
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(data, indent=1))
    fresh.replace(file)
