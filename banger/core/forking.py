"""What VMs that begin from a snapshot are called, and what they do not take over from it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_vm_name
from banger.core.wire.port_forward import PortForward
from banger.core.wire.snapshots import MOST_FORKS
from banger.core.wire.vm_spec import VmSpec

#: Stands for the number of a fork in a pattern of names.
NUMBER = "{n}"
_LONGEST_NAME = 40


def forked_spec(spec: VmSpec, ports: Sequence[PortForward]) -> VmSpec:
    """The spec of a VM that begins from a snapshot of one with ``spec``.

    Ports of the host can be published once, a host name is one VM's, and nobody's session holds the new one: none of
    these is taken over.
    """
    return replace(spec, ports=tuple(ports), hostname="", ephemeral=False)


def fork_names(pattern: str, count: int, base: str, taken: Collection[str]) -> list[str]:
    """The names of ``count`` new VMs: by a pattern with ``{n}``, or for an empty one, after ``base``.

    Numbers begin with 1. Without a pattern, those that are taken are passed over.

    Raises:
        BangerError: ``usage`` for a pattern that gives no names, or the same name twice, or a count that is none;
            ``already_exists`` for names that are taken.
    """
    if not 1 <= count <= MOST_FORKS:
        message = f"{count} VMs cannot be forked at once"
        raise BangerError(ErrorKind.USAGE, message, subject="count", hint=f"1 to {MOST_FORKS}")
    if not pattern:
        return _free_names(base, count, taken)
    if count > 1 and NUMBER not in pattern:
        raise BangerError(
            ErrorKind.USAGE, f'"{pattern}" is one name, not {count}', subject=pattern,
            hint=f"write {NUMBER} where the number goes: {pattern}-{NUMBER}",
        )  # fmt: skip
    names = [check_vm_name(pattern.replace(NUMBER, str(number + 1))) for number in range(count)]
    if there := sorted({*names} & {*taken}):
        raise BangerError(
            ErrorKind.ALREADY_EXISTS, f'vm "{there[0]}" already exists', subject=there[0],
            cause=f"so do {', '.join(there[1:])}" if there[1:] else "", hint=f"banger vm show {there[0]}",
        )  # fmt: skip
    return names


def numbered_name(base: str, taken: Collection[str]) -> str:
    """``base-1``, or with the first number that gives a name which is not taken."""
    return _free_names(base, 1, taken)[0]


def _free_names(base: str, count: int, taken: Collection[str]) -> list[str]:
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        ending = f"-{number}"
        name = base[: _LONGEST_NAME - len(ending)].rstrip("-") + ending
        if name not in taken:
            names.append(name)
    return names


def check_fork_ports(ports: Sequence[PortForward], count: int) -> None:
    """Refuse ports that several VMs cannot have.

    Raises:
        BangerError: ``usage``.
    """
    fixed = next((one for one in ports if one.host_port and not one.host_port_end), None)
    if count > 1 and fixed is not None:
        raise BangerError(
            ErrorKind.USAGE, f"{count} VMs cannot all publish port {fixed.host_port} of the host", subject=str(fixed),
            hint=f"leave it out, and each gets one that is free: -p {fixed.guest_port}",
        )  # fmt: skip
