"""Running the proof guest: does an accelerator work here, and how fast does the time stamp counter run?"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from banger.vmm.qemu import failures, proof_guest
from banger.vmm.qemu.arguments import Binary, machine_arguments, options


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of it.

    Attributes:
        works: the guest ran to its end.
        reason: why it did not, in one line.
        tsc_khz: rate of the counter as the guest saw it, in kHz; 0 if it could not tell, which matters to emulated
            machines alone.
    """

    works: bool
    reason: str = ""
    tsc_khz: int = 0


def prove(binary: Binary, accelerator: str, timeout_s: float) -> Proof:
    """Run the guest on ``kvm`` or ``tcg`` with the very arguments that real machines get."""
    with tempfile.TemporaryDirectory(prefix="banger-proof-") as scratch:
        kernel, output = Path(scratch, "kernel"), Path(scratch, "output")
        kernel.write_bytes(proof_guest.image())
        argv = [
            *machine_arguments(binary, "microvm", accelerator),
            "-m", "16M",
            "-kernel", str(kernel),
            "-chardev", options("file", id="out", path=output),
            "-device", options("isa-debugcon", iobase=proof_guest.DEBUG_CONSOLE_PORT, chardev="out"),
            "-device", options("isa-debug-exit", iobase=proof_guest.DEBUG_EXIT_PORT, iosize=2),
        ]  # fmt: skip
        try:
            status, words = _run(argv, scratch, timeout_s)
        except subprocess.TimeoutExpired:
            return Proof(works=False, reason=f"a test guest did not finish within {timeout_s:g} s")
        if status != proof_guest.EXIT_CODE:
            return Proof(works=False, reason=words or f"a test guest crashed (status {status})")
        rate = proof_guest.ticks_per_second(output.read_bytes())
    if rate is None and accelerator == "tcg":
        return Proof(works=False, reason="a test guest could not make sense of its clocks")
    return Proof(works=True, tsc_khz=round((rate or 0) / 1000))


def _run(argv: list[str], scratch: str, timeout_s: float) -> tuple[int, str]:
    """Exit status and QEMU's first words; kills it after ``timeout_s`` seconds."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=scratch
        )
    except OSError as error:
        raise failures.cannot_execute(argv[0], error) from error
    with process:
        with suppress(ProcessLookupError):  # QEMU aborts where KVM is broken: that is an answer, not a core dump
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        try:
            _, errors = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
    return process.returncode, failures.first_line(errors.decode(errors="replace"))
