"""The first programs of a VM: init and shell, and the libc and architecture they were built for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from banger.lint.elf import ElfFacts, read_elf
from banger.lint.finding import Finding, Severity
from banger.rootfs.ext4.reader import Ext4Reader, Inode
from banger.rootfs.refusals import shown

INIT = b"/sbin/init"
SHELL = b"/bin/sh"
#: Looked at to learn libc and architecture, the first ones there being enough.
_SAMPLES = (SHELL, INIT, b"/bin/bash", b"/bin/busybox", b"/usr/bin/env", b"/bin/ls")
_MAX_SAMPLES = 3
_SYSTEMD = (b"/lib/systemd/systemd", b"/usr/lib/systemd/systemd")
_BUSYBOX = (b"/bin/busybox", b"/usr/bin/busybox", b"/bin/busybox.static")
_OPENRC = (b"/sbin/openrc", b"/usr/sbin/openrc")
_ANY_EXECUTE = 0o111
_BUFFER_BYTES = 4096


class Init(StrEnum):
    """What ``/sbin/init`` is."""

    NONE = "none"
    SYSTEMD = "systemd"
    OPENRC = "openrc"
    BUSYBOX = "busybox"
    SYSVINIT = "sysvinit"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was looked at; ``elf`` is ``None`` for a script."""

    path: bytes
    elf: ElfFacts | None


def find_init(image: Ext4Reader) -> Init:
    """Which init the image has. By what the file *is* (under any of its names), not by what it is called."""
    init = executable(image, INIT)
    if init is None:
        return Init.NONE
    if _is_any(image, init, _SYSTEMD):
        return Init.SYSTEMD
    if any(image.find(path) for path in _OPENRC):
        return Init.OPENRC
    if _is_any(image, init, _BUSYBOX):
        return Init.BUSYBOX
    return Init.SYSVINIT if image.find(b"/etc/inittab") else Init.OTHER


def check_init(image: Ext4Reader, init: Init) -> Iterator[Finding]:
    """Say what will be process 1."""
    if init is not Init.NONE:
        yield Finding(Severity.INFO, f"init-{init}", f"the image's init is {init}")
    elif image.find(INIT, follow=False) is not None:
        message = f"{shown(INIT)} is there but cannot be run: it is a dangling link, or not executable"
        yield Finding(Severity.WARNING, "init-broken", message, "banger vm run --init none IMAGE")
    else:
        message = f"the image has no {shown(INIT)}; banger's own small init will be process 1"
        yield Finding(Severity.INFO, "init-none", message)


def check_shell(image: Ext4Reader) -> Iterator[Finding]:
    """Say whether there is a shell."""
    if executable(image, SHELL) is not None:
        return
    state = "cannot be run" if image.find(SHELL, follow=False) is not None else "is missing"
    yield Finding(
        Severity.WARNING,
        "shell-none",
        f"{shown(SHELL)} {state}: scripts do not run, and there is nothing to log in to",
        "give a program of the image as the command: banger vm run IMAGE -- /path/to/program",
    )


def sample(image: Ext4Reader) -> Sequence[Program]:
    """A few of the image's programs, those that a VM needs first."""
    found: dict[int, Program] = {}
    for path in _SAMPLES:
        inode = executable(image, path)
        if inode is not None and inode.number not in found:
            with io.BufferedReader(image.open(inode), _BUFFER_BYTES) as file:
                program = Program(path, read_elf(file))
            if program.elf is not None:
                found[inode.number] = program
        if len(found) == _MAX_SAMPLES:
            break
    return list(found.values())


def check_programs(image: Ext4Reader, programs: Sequence[Program], machine: str) -> Iterator[Finding]:
    """Say which libc the programs use, and what keeps them from running on ``machine`` (as ``uname -m`` says)."""
    for program in programs:
        elf = program.elf
        assert elf is not None
        if elf.machine not in _runs(machine):
            message = f"{shown(program.path)} is a program for {elf.machine}, this host is {machine}"
            hint = "banger image pull --platform linux/ARCHITECTURE REFERENCE"
            yield Finding(Severity.ERROR, "architecture-foreign", message, hint)
            return
        if elf.interpreter and image.find(elf.interpreter) is None:
            message = f"{shown(program.path)} needs {shown(elf.interpreter)}, which the image does not have"
            yield Finding(Severity.ERROR, "loader-missing", message)
    libc = _libc(programs)
    if libc:
        yield Finding(Severity.INFO, f"libc-{libc.split()[0]}", f"the image's programs use {libc}")


def executable(image: Ext4Reader, path: bytes) -> Inode | None:
    """The file at ``path``, links followed, if root can run it."""
    inode = image.find(path)
    return inode if inode is not None and inode.is_file and inode.mode & _ANY_EXECUTE else None


def uses_32_bit(programs: Sequence[Program]) -> bool:
    """True if any of the programs is for 32-bit x86."""
    return any(program.elf is not None and program.elf.machine == "i386" for program in programs)


def _libc(programs: Sequence[Program]) -> str:
    """The libc by the name of the dynamic loader; empty if no program tells."""
    interpreters = [program.elf.interpreter for program in programs if program.elf is not None]
    for interpreter in filter(None, interpreters):
        name = interpreter.rpartition(b"/")[2]
        if name.startswith(b"ld-musl"):
            return "musl"
        if name.startswith((b"ld-linux", b"ld64", b"ld.so", b"ld-2")):
            return "glibc"
        return f"unknown libc ({shown(name)})"
    return "none (they are static)" if interpreters else ""


def _runs(machine: str) -> tuple[str, ...]:
    return (machine, "i386") if machine == "x86_64" else (machine,)


def _is_any(image: Ext4Reader, inode: Inode, paths: Sequence[bytes]) -> bool:
    return any(other.number == inode.number for path in paths if (other := image.find(path)) is not None)
