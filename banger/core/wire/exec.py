"""What frame streams begin with: the configurations of commands and copies."""

from __future__ import annotations

from dataclasses import dataclass

from banger.core.units import LONGEST_S
from banger.core.wire.facts import Facts, described
from banger.core.wire.vm_spec import VmSpec

#: Of a terminal, in each direction; the kernel has 16 bits for it (ioctl_tty(2)).
_MOST_CELLS = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class TerminalConfig:
    """The caller's terminal."""

    rows: int = described(24, Facts("Lines.", most=_MOST_CELLS))
    columns: int = described(80, Facts("Characters of a line.", most=_MOST_CELLS))
    term: str = "xterm-256color"


@dataclass(frozen=True, slots=True)
class ExecConfig:
    """CONFIG of an exec: an empty ``argv`` is a shell, or in a run the image's own command."""

    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    tty: TerminalConfig | None = None
    timeout_s: float | None = described(
        None, Facts("Terminate the command after this time.", detail="Seconds; null: never.", most=LONGEST_S)
    )

    checkpoint: str = described(
        "",
        Facts(
            "Take a snapshot of the VM before the command runs: auto.",
            detail="For a running VM alone; the oldest such snapshots are deleted.",
            choices=("", "auto"),
        ),
    )


@dataclass(frozen=True, slots=True)
class RunConfig:
    """CONFIG of a run: make and start a VM, then exec in it."""

    spec: VmSpec
    name: str = ""
    exec: ExecConfig = ExecConfig()
    detach: bool = False


@dataclass(frozen=True, slots=True)
class SshConfig:
    """CONFIG of a connection to a guest's ssh server: there is nothing to say."""


@dataclass(frozen=True, slots=True)
class CopyConfig:
    """CONFIG of a copy into or out of a guest: nothing but what the query says."""
