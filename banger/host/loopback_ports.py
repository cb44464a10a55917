"""Choosing the host's side of TCP forwards."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import PortForward

_ANY_ADDRESS = "0.0.0.0"  # noqa: S104  # compared with, never bound to unless the user says so
_MOST_TRIES = 64

#: ``(address, port)`` to the name of the VM that holds it.
Taken = Mapping[tuple[str, int], str]


def choose_ports(forwards: Sequence[PortForward], taken: Taken) -> list[PortForward]:
    """Check the requested host ports and pick free ones where ``host_port`` is 0, in the given order.

    A port is only known to be free at this moment: whoever binds it later may still find it taken.

    Args:
        forwards: what was asked for.
        taken: ports that other VMs hold, also those that they do not listen on yet.

    Raises:
        BangerError: ``conflict`` for a port that is taken or asked for twice, ``denied`` for one that this user may
            not listen on, ``usage`` for an address that this host does not have.
    """
    chosen: dict[int, PortForward] = {}
    with ExitStack() as held:
        # Every socket is held until all are chosen, so that no port is given out twice. Requested ones come first.
        for index, forward in sorted(enumerate(forwards), key=lambda item: item[1].host_port == 0):
            if forward.host_port:
                _check(forward, taken, held)
                chosen[index] = forward
            else:
                chosen[index] = replace(forward, host_port=_pick(forward.host_address, taken, held))
    return [chosen[index] for index in range(len(forwards))]


def _check(forward: PortForward, taken: Taken, held: ExitStack) -> None:
    address, port = forward.host_address, forward.host_port
    owner = _owner(address, port, taken)
    if owner:
        raise _conflict(address, port, f'VM "{owner}" holds it', f"banger vm show {owner}")
    listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    # As the VMM will bind it: connections of a former holder that linger in TIME_WAIT are no obstacle, and only
    # listening tells whether somebody else who allows sharing the address listens already.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(1)
    except OSError as error:
        raise _refusal(address, port, error) from error


def _pick(address: str, taken: Taken, held: ExitStack) -> int:
    for _ in range(_MOST_TRIES):
        listener = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        try:
            listener.bind((address, 0))
        except OSError as error:
            raise _refusal(address, 0, error) from error
        port = int(listener.getsockname()[1])
        if not _owner(address, port, taken):
            return port
    raise BangerError(ErrorKind.EXHAUSTED, f"no free port on {address}", subject=address, hint="banger vm list")


def _owner(address: str, port: int, taken: Taken) -> str:
    for (taken_address, taken_port), owner in taken.items():
        if taken_port == port and (taken_address == address or _ANY_ADDRESS in (taken_address, address)):
            return owner or "?"
    return ""


def _refusal(address: str, port: int, error: OSError) -> BangerError:
    if error.errno == errno.EADDRINUSE:
        return _conflict(address, port, error.strerror or "", f"ss -ltnp sport = :{port}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return BangerError(
            ErrorKind.DENIED,
            f"port {port} on {address} is not for this user",
            subject=str(port),
            cause=error.strerror or "",
            hint="choose a port above 1023",
        )
    return BangerError(
        ErrorKind.USAGE,
        f'cannot listen on "{address}"',
        subject=address,
        cause=error.strerror or str(error),
        hint="choose an address of this host, such as 127.0.0.1",
    )


def _conflict(address: str, port: int, cause: str, hint: str) -> BangerError:
    message = f"port {port} on {address} is already taken"
    return BangerError(ErrorKind.CONFLICT, message, subject=str(port), cause=cause, hint=hint)
