"""Running the proof guest: whether an accelerator works, how fast it is, and the rate of the time stamp counter."""

from __future__ import annotations

import os
import resource
import selectors
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from banger.vmm.cpu_time import cpu_seconds
from banger.vmm.qemu import failures, proof_guest
from banger.vmm.qemu.arguments import Binary, machine_arguments, options

#: Of the time in which a silent guest said nothing, the part that its VMM was really given by the host.
_BUSY_HOST_SHARE = 0.25
_MOST_WORDS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of it.

    Attributes:
        works: the guest ran to its end.
        reason: why it did not, in one line.
        tsc_khz: rate of the counter as the guest saw it, in kHz; 0 if it could not tell, which matters to emulated
            machines alone.
        tsc_error: how far off that may be, as a part of it.
        chunk_s: seconds that the fastest chunk of the guest's work in kernel mode took.
        conclusive: false if the host was too busy to tell, so that another try may end otherwise.
    """

    works: bool
    reason: str = ""
    tsc_khz: int = 0
    chunk_s: float = 0.0
    tsc_error: float = 0.0
    conclusive: bool = True


def prove(binary: Binary, accelerator: str, timeout_s: float, patience_s: float | None = None) -> Proof:
    """Run the guest on ``kvm`` or ``tcg`` with the very arguments that real machines get.

    Args:
        binary: the QEMU to run.
        accelerator: ``kvm`` or ``tcg``.
        timeout_s: what the whole guest may take, in seconds.
        patience_s: what one chunk of its work may take, in seconds; ``None`` for no other limit.
    """
    with tempfile.TemporaryDirectory(prefix="banger-proof-") as scratch:
        kernel = Path(scratch, "kernel")
        kernel.write_bytes(proof_guest.image())
        argv = [
            *machine_arguments(binary, "microvm", accelerator),
            "-m", "16M",
            "-kernel", str(kernel),
            "-chardev", options("stdio", id="out", signal="off"),
            "-device", options("isa-debugcon", iobase=proof_guest.DEBUG_CONSOLE_PORT, chardev="out"),
            "-device", options("isa-debug-exit", iobase=proof_guest.DEBUG_EXIT_PORT, iosize=2),
        ]  # fmt: skip
        heard = _run(argv, scratch, timeout_s, timeout_s if patience_s is None else patience_s)
    if heard.cut:
        return Proof(works=False, reason=heard.cut, conclusive=heard.conclusive)
    if heard.status != proof_guest.EXIT_CODE:
        words = failures.first_line(heard.words.decode(errors="replace"))
        return Proof(works=False, reason=words or f"a test guest crashed (status {heard.status})")
    spoken = bytes(byte for byte, _ in heard.spoken)
    measured = proof_guest.ticks_per_second(spoken[proof_guest.CHUNKS + 1 :])
    if measured is None and accelerator == "tcg":
        return Proof(works=False, reason="a test guest could not make sense of its clocks", conclusive=False)
    rate, error = measured or (0.0, 0.0)
    return Proof(works=True, tsc_khz=round(rate / 1000), tsc_error=error, chunk_s=_fastest_chunk(heard.spoken))


@dataclass(slots=True)
class _Heard:
    """What came from a guest and its VMM: bytes with the time at which they came, words, and how it ended."""

    spoken: list[tuple[int, float]] = field(default_factory=list)
    words: bytearray = field(default_factory=bytearray)
    status: int = 0
    cut: str = ""
    conclusive: bool = True


def _fastest_chunk(spoken: list[tuple[int, float]]) -> float:
    """The least time between two marks: what the work takes when nobody else wants the processor."""
    marks = [at for _, at in spoken[: proof_guest.CHUNKS + 1]]
    return min((end - start for start, end in pairwise(marks)), default=0.0)


def _run(argv: list[str], scratch: str, timeout_s: float, patience_s: float) -> _Heard:
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=scratch
        )
    except OSError as error:
        raise failures.cannot_execute(argv[0], error) from error
    with process:
        with suppress(ProcessLookupError):  # QEMU aborts where KVM is broken: that is an answer, not a core dump
            resource.prlimit(process.pid, resource.RLIMIT_CORE, (0, 0))
        try:
            heard = _listen(process, timeout_s, patience_s)
        finally:
            process.kill()
        heard.status = process.wait()
    return heard


def _listen(process: subprocess.Popen[bytes], timeout_s: float, patience_s: float) -> _Heard:
    """Hear the guest out: until it ends, breaks, or is silent for longer than it may be."""
    assert process.stdout is not None
    assert process.stderr is not None
    heard = _Heard()
    begun = time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            at_work = 0 < len(heard.spoken) <= proof_guest.CHUNKS
            limit = min(begun + timeout_s, heard.spoken[-1][1] + patience_s if at_work else begun + timeout_s)
            ready = selector.select(max(0.0, limit - time.monotonic()))
            if not ready:
                _cut_short(heard, process, time.monotonic() - begun, at_work=at_work)
                break
            for key, _ in ready:
                data = os.read(key.fd, 4096)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    heard.spoken += [(byte, time.monotonic()) for byte in data]
                else:
                    heard.words += data[: _MOST_WORDS - len(heard.words)]
            heard.cut = failures.kvm_failure(heard.words.decode(errors="replace"))
            if heard.cut:
                break
    return heard


def _cut_short(heard: _Heard, process: subprocess.Popen[bytes], elapsed_s: float, *, at_work: bool) -> None:
    heard.conclusive = cpu_seconds(process.pid) > elapsed_s * _BUSY_HOST_SHARE
    done = max(0, len(heard.spoken) - 1)
    heard.cut = (
        f"a test guest's kernel mode did {done} of {proof_guest.CHUNKS} pieces of work in {elapsed_s:.1f} s"
        if at_work
        else f"a test guest did not finish within {elapsed_s:.1f} s"
    )
