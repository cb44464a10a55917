"""The checks that need no network: kernel, console, root file system, exec, cp, clock."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import time
from pathlib import Path

from banger.checkup import clocks
from banger.checkup.guest import Guest, ScriptDialog
from banger.checkup.report import CheckFailedError, Finding
from banger.client.copying import copy_in, copy_out
from banger.core.clock import now
from banger.core.console import boot_marks, last_lines
from banger.core.units import MIB

#: What exec, cp and the root file system are tried with.
_SAMPLE_BYTES = MIB
_EXIT_CODE = 42
_CLOCK_LIMIT_S = 1.0
_CLOCK_LEAST_SAMPLES, _CLOCK_MOST_SAMPLES = 3, 40
_CONSOLE_WAIT_S, _CONSOLE_POLL_S = 10.0, 0.1

#: Written, forced to the disk, dropped from memory, read back.
_ROOT_SCRIPT = """
file=/.banger-checkup
trap '$B rm -f $file' EXIT
$B cat >$file && $B sync || exit 1
echo 3 >/proc/sys/vm/drop_caches
$B sha256sum <$file
"""
_ROOT_HINTS = {
    "Read-only file system": "the image mounts / read-only: see its /etc/fstab, or leave its init out with --init none",
    "No space left": "give VMs more room: --disk 20G, or vm.disk_mib",
    "Input/output error": "the disk breaks: banger vm logs --source vmm, dmesg of this host, banger system df",
}
_CLOCK_SCRIPT = 'while read -r _; do echo "${EPOCHREALTIME:-$($B date +%s)}"; done'


def check_kernel(guest: Guest, release: str) -> Finding:
    """The kernel that runs is the one that was chosen. ``release``: of that one, or empty if its file did not tell."""
    said = guest.shell("read -r release </proc/sys/kernel/osrelease && echo $release")
    if not said.text:
        raise CheckFailedError("the guest does not tell its kernel's release", cause=said.complaint)
    if release and said.text != release:
        hint = "does the image start a kernel of its own (kexec)? banger kernel list tells what is here"
        raise CheckFailedError(f"{said.text} runs, and {release} was to", hint=hint)
    return Finding(said.text)


def check_console(guest: Guest) -> Finding:
    """The boot's lines are in the console log, and a line that is written now arrives."""
    marks = boot_marks(guest.console())
    missing = [name for name in ("init", "root", "ready") if getattr(marks, f"{name}_s") is None]
    if missing:
        hint = "the kernel wants a driver for the first serial port (console=ttyS0)"
        raise CheckFailedError(f"the boot's lines are not in the console log: {', '.join(missing)}", hint=hint)
    word = f"checkup {secrets.token_hex(8)}"
    said = guest.shell('echo "$1" >/dev/console', word)
    if said.code:
        raise CheckFailedError("the guest cannot write to /dev/console", cause=said.complaint)
    deadline = time.monotonic() + _CONSOLE_WAIT_S
    while word not in guest.console():
        if time.monotonic() > deadline:
            seen = last_lines(guest.console())
            hint = "an init that moves the console: banger vm logs shows only what reaches ttyS0"
            raise CheckFailedError("what the guest writes to its console does not arrive", cause=seen, hint=hint)
        time.sleep(_CONSOLE_POLL_S)
    return Finding(f"init after {marks.init_s:.2f} s, ready after {marks.ready_s:.2f} s of guest time")


def check_root(guest: Guest) -> Finding:
    """What is written to the root file system is on its disk, and reads back the same."""
    data = os.urandom(_SAMPLE_BYTES)
    said = guest.shell(_ROOT_SCRIPT, stdin=data)
    if said.text.split(" ")[0] == hashlib.sha256(data).hexdigest():
        return Finding("1 MiB written, synced and read back from the disk")
    hint = next((hint for words, hint in _ROOT_HINTS.items() if words in said.complaint), "")
    detail = "the root file system cannot be written" if said.code else "what was written reads back differently"
    raise CheckFailedError(detail, cause=said.complaint, hint=hint)


def check_exec(guest: Guest) -> Finding:
    """A command's streams arrive apart and whole, and so does its exit code."""
    data = os.urandom(_SAMPLE_BYTES)
    began = time.monotonic()
    said = guest.shell(f"$B cat; echo apart >&2; exit {_EXIT_CODE}", stdin=data)
    elapsed_s = time.monotonic() - began
    if said.code != _EXIT_CODE:
        raise CheckFailedError(f"the exit code {_EXIT_CODE} arrived as {said.code}", cause=said.complaint)
    if said.stdout != data:
        raise CheckFailedError(f"1 MiB through the guest came back as {len(said.stdout)} other bytes")
    if said.stderr != b"apart\n":
        raise CheckFailedError("standard error did not arrive as it was written", cause=said.complaint)
    return Finding(f"exit code, streams apart, 1 MiB there and back in {elapsed_s:.1f} s")


def check_copy(guest: Guest) -> Finding:
    """A file goes in and comes out the same. It stays in memory there: the disk is another check's."""
    data = os.urandom(_SAMPLE_BYTES)
    with tempfile.TemporaryDirectory(prefix="banger-checkup-") as directory:
        source, back = Path(directory, "sample"), Path(directory, "back")
        source.write_bytes(data)
        target = f"/run/banger-checkup-{secrets.token_hex(4)}"
        try:
            copy_in(guest.client, guest.id, str(source), target)
            copy_out(guest.client, guest.id, target, str(back))
        finally:
            guest.shell('$B rm -f "$1"', target)
        if back.read_bytes() != data:
            raise CheckFailedError("1 MiB that was copied in came out differently")
    return Finding("1 MiB in and out, the same")


def check_clock(guest: Guest) -> Finding:
    """The guest's clock is within a second of this host's, whatever a question and its answer take."""
    try:
        with guest.talk(_CLOCK_SCRIPT) as talk:
            offset = _measure_clock(talk)
    except ValueError as error:
        raise CheckFailedError("the guest does not tell the time", cause=str(error)) from error
    if offset.surely_beyond(_CLOCK_LIMIT_S):
        hint = (
            "something in the image sets it (chrony, ntpd, hwclock with local time), or this host's own clock was set "
            "meanwhile; restarting the VM sets it again"
        )
        raise CheckFailedError(f"{offset} of this host", hint=hint)
    return Finding(f"{offset} of this host", note=not offset.surely_within(_CLOCK_LIMIT_S))


def _measure_clock(talk: ScriptDialog) -> clocks.Offset:
    """Ask until it is clear, but not forever; raises ``ValueError`` for an answer that is no time."""
    samples = [_ask_time(talk) for _ in range(_CLOCK_LEAST_SAMPLES)]
    while True:
        offset = clocks.offset(samples)
        is_clear = offset.surely_within(_CLOCK_LIMIT_S) or offset.surely_beyond(_CLOCK_LIMIT_S)
        if is_clear or len(samples) >= _CLOCK_MOST_SAMPLES:
            return offset
        samples.append(_ask_time(talk))


def _ask_time(talk: ScriptDialog) -> clocks.Sample:
    sent_s = now().timestamp()
    answer = talk.ask()
    # now() cuts off to whole milliseconds: the answer came at most one later than it says.
    return clocks.Sample(sent_s, now().timestamp() + 0.001, answer)
