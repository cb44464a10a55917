"""Starting a process confined: what it is handed is opened for it, and everything else on the host is taken from it.

The program in ``banger/jail/`` is executed in its place, does what its options say, and becomes it: pid, session and
cgroup stay the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
    """

    files: Sequence[Opened] = ()
    sockets: Sequence[tuple[int, Path]] = ()
    taps: Sequence[tuple[int, str]] = ()
    visible: Sequence[Path] = ()
    devices: Sequence[Path] = ()
    uid: int = 0
    has_network: bool = True
    enter: Sequence[Path] = ()


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


def jailed(confinement: Confinement, argv: Sequence[str], cgroup: Path | None = None) -> list[str]:
    """The command line that starts ``argv`` confined, in the cgroup whose ``cgroup.procs`` is given. Pure."""
    words: list[object] = list(helper())
    if cgroup:
        words += ["--cgroup", cgroup]
    for namespace in confinement.enter:
        words += ["--enter", namespace]
    for file in confinement.files:
        words += ["--open", file.number, file.mode, file.path]
    for number, path in confinement.sockets:
        words += ["--listen", number, path]
    for number, tap in confinement.taps:
        words += ["--tap", number, tap]
    if not confinement.uid and not confinement.enter:
        words.append("--user-namespace")
    if not confinement.has_network:
        words.append("--no-network")
    words.append("--root")
    for path in confinement.visible:
        words += ["--visible", path]
    for device in confinement.devices:
        words += ["--device", device]
    if confinement.uid:
        words += ["--user", confinement.uid, confinement.uid]
    return [*map(str, words), "--", *argv]
