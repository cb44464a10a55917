"""Testing whether guests really run on KVM here: ``/dev/kvm`` proves nothing, so a guest is run on it and timed.

KVM counts if the guest's kernel mode is at least as fast on it as emulated. Where KVM itself is virtualisation in
software (or a nested KVM stalls), small guests run to their end and real kernels never come up.

A verdict holds for this boot, this kernel and this QEMU and is kept in the cache directory; access to the device is
looked at every time, because it may be granted meanwhile.
"""

from __future__ import annotations

import os
import threading
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.vmm.findings_cache import FindingsCache
from banger.vmm.identity import current_boot_id
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.binary import find_binary
from banger.vmm.qemu.proof import Proof, prove
from banger.vmm.qemu.proof_guest import image
from banger.vmm.survey import Accelerator

KVM_DEVICE = Path("/dev/kvm")
#: Seconds that the proof guest may take; it needs a quarter of one.
_KVM_TIMEOUT_S = 5.0
_TCG_TIMEOUT_S = 20.0
#: A piece of the guest's work may take so many times what it takes emulated before it is given up, but never less than
#: so many seconds: the host may be busy.
_PATIENCE_FACTOR, _LEAST_PATIENCE_S = 20, 1.0
#: What a piece of work may take on KVM where QEMU cannot emulate, in seconds; hardware takes two milliseconds.
_SLOWEST_CHUNK_S = 0.05

#: A clock that goes by a counter whose rate may be off by more than this part is soon seconds wrong. On a busy host one
#: measurement in three is as good; each start tries so many times, and what was best is kept.
_TSC_ERROR, _MOST_MEASUREMENTS = 0.001, 4

_lock = threading.Lock()


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
    allowed_s = emulated_chunk_s(layout)
    patience_s = max(_LEAST_PATIENCE_S, _PATIENCE_FACTOR * allowed_s)
    proof = _proof(layout, "kvm", _KVM_TIMEOUT_S, patience_s, again=again)
    if not proof.works:
        return Accelerator("tcg", f"KVM does not run guests here: {proof.reason}")
    pace = f"{proof.chunk_s * 1000:.1f} ms for what takes {allowed_s * 1000:.1f} ms emulated"
    if proof.chunk_s > allowed_s:
        return Accelerator("tcg", f"KVM is slower than emulation here: {pace}")
    return Accelerator("kvm", f"a test guest ran on it ({pace})")


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
    for _ in range(_MOST_MEASUREMENTS):
        if proof.tsc_error <= _TSC_ERROR:
            break
        proof = _measured_again(layout, proof)
    return proof.tsc_khz


def _measured_again(layout: Layout, proof: Proof) -> Proof:
    """The proof of emulation with the better one of two measurements, which is kept."""
    binary = find_binary()
    again = prove(binary, "tcg", _TCG_TIMEOUT_S, None)
    if not again.works or again.tsc_error >= proof.tsc_error:
        return proof
    better = replace(again, chunk_s=min(again.chunk_s, proof.chunk_s))
    kept = _kept(layout, binary)
    with _lock:
        _save(kept, {**_load(kept), "tcg": better})
    return better


def emulated_chunk_s(layout: Layout) -> float:
    """Seconds that emulation takes for a piece of the proof guest's work in kernel mode: how fast this host is."""
    emulated = _proof(layout, "tcg", _TCG_TIMEOUT_S)
    return emulated.chunk_s if emulated.works else _SLOWEST_CHUNK_S


def forget_kvm(layout: Layout) -> None:
    """Have KVM proven anew by the next who asks: what was found of it does not hold any more."""
    kept = _kept(layout, find_binary())
    with _lock:
        proofs = _load(kept)
        if proofs.pop("kvm", None) is not None:
            _save(kept, proofs)


def _obstacle(device: Path) -> Accelerator | None:
    """The answer without any proof, if the device is not there or not for us."""
    if not device.exists():
        return Accelerator("tcg", f"there is no {device}", "modprobe kvm-intel || modprobe kvm-amd")
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"no permission for {device}", "sudo usermod -aG kvm $USER, then log in again")
    return None


def _proof(
    layout: Layout, name: str, timeout_s: float, patience_s: float | None = None, *, again: bool = False
) -> Proof:
    binary = find_binary()
    kept = _kept(layout, binary)
    with _lock:
        proofs = _load(kept)
        if again or name not in proofs:
            proofs[name] = prove(binary, name, timeout_s, patience_s)
            if proofs[name].conclusive and (proofs[name].works or name == "kvm"):
                _save(kept, proofs)
        return proofs[name]


def _kept(layout: Layout, binary: Binary) -> FindingsCache:
    circumstances = [current_boot_id(), os.uname().release, binary.path, binary.version, sha256(image()).hexdigest()]
    return FindingsCache(layout.cache / "proofs.json", circumstances, "proofs")


def _load(kept: FindingsCache) -> dict[str, Proof]:
    """The proofs; of another form they count as none."""
    try:
        return {name: Proof(**fields) for name, fields in kept.load().items()}
    except TypeError:
        return {}


def _save(kept: FindingsCache, proofs: dict[str, Proof]) -> None:
    kept.save({name: asdict(proof) for name, proof in proofs.items()})
