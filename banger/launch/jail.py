"""Starting a process confined: what it is handed is opened for it, and everything else on the host is taken from it.

The program in ``banger/jail/`` is executed in its place, does what its options say, and becomes it: pid, session and
cgroup stay the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from banger.core.errors import BangerError
from banger.posix.programs import run_program

_TIMEOUT_S = 10.0
#: ``-I -S``: nothing of the environment, no site packages. The package is put in place by hand, since its own
#: ``__init__`` takes longer than all of the jail.
_START = (
    "import sys; package = sys.modules['banger'] = type(sys)('banger'); package.__path__ = [sys.argv[1]]; "
    "from banger.jail.program import main; main(sys.argv[2:])"
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that a process gets as descriptor ``number``; ``append`` makes one that is not there."""

    number: int
    mode: Literal["read", "write", "append"]
    path: Path


@dataclass(frozen=True, slots=True)
class Put:
    """A file, directory or block device that is seen at another place."""

    mode: Literal["read", "write"]
    path: Path
    place: Path


@dataclass(frozen=True, slots=True)
class ForJailer:
    """What a program gets that confines itself further, and becomes another user by itself.

    It opens all things by name, as that user, who must have the right to: only taps and block devices are given away.

    Attributes:
        scratch: an empty directory of its own, which goes with it.
        scratch_bytes: how much that takes.
        put: what it sees besides, in the scratch directory too.
        taps: names of those that it attaches to; they must be there.
    """

    scratch: Path
    scratch_bytes: int
    put: Sequence[Put] = ()
    taps: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ForHelper:
    """What a process gets that is killed when the thread that starts it ends.

    Attributes:
        kept: descriptors that it inherits.
        own_tap: the descriptor of a new tap, in an empty network namespace; it goes with the process.
    """

    kept: Sequence[int]
    own_tap: int


@dataclass(frozen=True, slots=True)
class Confinement:
    """What is left to a process. Paths and taps are opened with the rights of whoever starts it.

    Attributes:
        files: what it gets open.
        sockets: descriptor and path of Unix sockets on which it will be called; the paths must be free.
        taps: descriptor and name; they must be there.
        visible: files and directories that are seen at the same place, read-only; nothing else is.
        devices: device nodes that it may use.
        uid: the user and group that it becomes, who are nobody else's; 0 leaves it who it is.
        has_network: it sees the network of the host, or that of ``enter``.
        enter: namespaces (``/proc/PID/ns/…``) that are entered before anything else, in this order.
        has_processes: it sees those of the host; otherwise it is process 1 of a PID namespace.
        jailer: the program is a jailer, which becomes ``uid`` itself, and gets this.
        written: files that are seen at the same place, as ``visible``, and may be written.
        helper: it serves whoever starts it, for a moment, and gets this.
    """

    files: Sequence[Opened] = ()
    sockets: Sequence[tuple[int, Path]] = ()
    taps: Sequence[tuple[int, str]] = ()
    visible: Sequence[Path] = ()
    devices: Sequence[Path] = ()
    uid: int = 0
    has_network: bool = True
    enter: Sequence[Path] = ()
    has_processes: bool = True
    jailer: ForJailer | None = None
    written: Sequence[Path] = ()
    helper: ForHelper | None = None


def helper() -> list[str]:
    """The words that start the program in ``banger/jail/``; its options follow."""
    return [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).parents[1])]


def obstacle(uid: int) -> str:
    """Why no process can be confined here as ``uid``, found by confining one that is not there; empty if it can."""
    nothing = "/nonexistent"
    try:
        done = run_program(jailed(Confinement(uid=uid, has_network=False), [nothing]), timeout_s=_TIMEOUT_S)
    except (BangerError, OSError) as error:
        return str(error)
    return "" if f'cannot run "{nothing}"' in done.words else done.words


def jailed(
    confinement: Confinement, argv: Sequence[str], cgroup: Path | None = None, *, forks: bool = False
) -> list[str]:
    """The command line that starts ``argv`` confined. Pure.

    Args:
        confinement: what is left to it.
        argv: the program and its arguments.
        cgroup: the ``cgroup.procs`` of one that it enters.
        forks: if it shall be process 1 of a PID namespace, it becomes so in a child, and the process itself leaves;
            otherwise whoever starts it sees to that.
    """
    words: list[object] = list(helper())
    if cgroup:
        words += ["--cgroup", cgroup]
    if forks and not confinement.has_processes:
        words.append("--process-namespace")
    for namespace in confinement.enter:
        words += ["--enter", namespace]
    words += _handed(confinement)
    if not confinement.uid and not confinement.enter:
        words.append("--user-namespace")
    if not confinement.has_network:
        words.append("--no-network")
    words.append("--root")
    for path in confinement.visible:
        words += ["--visible", path]
    for path in confinement.written:
        words += ["--put", "write", path, path]
    for device in confinement.devices:
        words += ["--device", device]
    if confinement.uid:
        words += ["--user", confinement.uid, confinement.uid]
    if confinement.helper:
        words += _for_helper(confinement.helper)
    if confinement.jailer:
        words += _for_jailer(confinement.jailer)
    return [*map(str, words), "--", *argv]


def _handed(confinement: Confinement) -> Iterator[object]:
    for file in confinement.files:
        yield from ("--open", file.number, file.mode, file.path)
    for number, path in confinement.sockets:
        yield from ("--listen", number, path)
    for number, tap in confinement.taps:
        yield from ("--tap", number, tap)


def _for_helper(given: ForHelper) -> Iterator[object]:
    for number in given.kept:
        yield from ("--keep", number)
    yield from ("--own-tap", given.own_tap, "--end-with-parent")


def _for_jailer(given: ForJailer) -> Iterator[object]:
    yield from ("--jailer", "--scratch", given.scratch, given.scratch_bytes)
    for one in given.put:
        yield from ("--put", one.mode, one.path, one.place)
    for tap in given.taps:
        yield from ("--lend-tap", tap)
