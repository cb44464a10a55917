"""Choosing and binding the host's side of port forwards."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType

from banger.core.errors import BangerError, ErrorKind
from banger.core.publishing import at, covers
from banger.core.wire.port_forward import PortForward
from banger.forwarding.holders import holder_of

_MOST_TRIES = 64
#: The kernel's queue of those that wait to be accepted (it has a limit of its own, net.core.somaxconn).
BACKLOG = 1024

#: ``(protocol, address, port)`` to the name of the VM that holds it.
Taken = Mapping[tuple[str, str, int], str]
#: A forward whose port is chosen, and the socket that is bound to it; a TCP one listens.
Bound = tuple[PortForward, socket.socket]


@contextmanager
def bound_ports(
    forwards: Sequence[PortForward],
    taken: Taken,
    before: Sequence[PortForward] = (),
    kept: Mapping[tuple[str, str, int], socket.socket] = MappingProxyType({}),
) -> Iterator[list[Bound]]:
    """Check the requested host ports, pick free ones where that is left to us, and bind all, in the given order.

    They stay bound meanwhile, so that none is given out twice.

    Args:
        forwards: what was asked for.
        taken: ports that other VMs hold, also those that they do not listen on yet.
        before: what was chosen for these forwards the last time: picked again where it is free.
        kept: sockets that have been bound to some of those since, to be used; all of them are closed afterwards.

    Raises:
        BangerError: ``conflict`` for a port that is taken or asked for twice, ``denied`` for one that this user may
            not listen on, ``usage`` for an address that this host does not have, ``exhausted``.
    """
    again = before if [_requested(one) for one in before] == [_requested(one) for one in forwards] else ()
    bound: dict[int, Bound] = {}
    with ExitStack() as held:
        for opened in kept.values():
            held.enter_context(opened)
        for index, forward in sorted(enumerate(forwards), key=lambda item: _freedom(item[1])):
            place = again[index] if again else forward
            if there := kept.get((place.protocol, place.host_address, place.host_port)):
                bound[index] = place, there
                continue
            candidates = [again[index], forward] if again and _freedom(forward) else [forward]
            bound[index] = _first(candidates, taken, held)
        yield [bound[index] for index in range(len(forwards))]


def has_callers(opened: socket.socket) -> bool:
    """Somebody waits at a port that nobody has served so far."""
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    return bool(poll.poll(0))


def _requested(forward: PortForward) -> tuple[int, str, str]:
    return forward.guest_port, forward.host_address, forward.protocol


def _freedom(forward: PortForward) -> int:
    """What leaves less choice comes first: a given port, one of a range, any."""
    return 2 if not forward.host_port else 1 if forward.host_port_end else 0


def _first(candidates: Sequence[PortForward], taken: Taken, held: ExitStack) -> Bound:
    for candidate in candidates[:-1]:
        try:
            return _take(candidate, taken, held)
        except BangerError:
            continue
    candidate = candidates[-1]
    if not candidate.host_port:
        return _pick(candidate, taken, held)
    return _one_of(candidate, taken, held) if candidate.host_port_end else _take(candidate, taken, held)


def _take(forward: PortForward, taken: Taken, held: ExitStack) -> Bound:
    owner = _owner(forward, taken)
    if owner:
        raise _conflict(forward, f'VM "{owner}" holds it', f"banger vm show {owner}")
    try:
        return forward, held.enter_context(_open(forward, forward.host_port))
    except OSError as error:
        raise _refusal(forward, error) from error


def _one_of(forward: PortForward, taken: Taken, held: ExitStack) -> Bound:
    for port in range(forward.host_port, forward.host_port_end + 1):
        try:
            return _take(replace(forward, host_port=port, host_port_end=0), taken, held)
        except BangerError as error:
            if error.kind is not ErrorKind.CONFLICT:
                raise
    ports = f"{forward.host_port} to {forward.host_port_end}"
    message = f"{forward.protocol} ports {ports} on {forward.host_address} are all taken"
    raise BangerError(ErrorKind.CONFLICT, message, subject=ports, hint=f"banger vm list; {_listing(forward)}")


def _pick(forward: PortForward, taken: Taken, held: ExitStack) -> Bound:
    for _ in range(_MOST_TRIES):
        try:
            # Those that are refused are held too, or the same would be offered again.
            opened = held.enter_context(_open(forward, 0))
        except OSError as error:
            raise _refusal(forward, error) from error
        chosen = replace(forward, host_port=int(opened.getsockname()[1]))
        if not _owner(chosen, taken):
            return chosen, opened
    address = forward.host_address
    raise BangerError(ErrorKind.EXHAUSTED, f"no free port on {address}", subject=address, hint="banger vm list")


def _open(forward: PortForward, port: int) -> socket.socket:
    """A socket bound to the port: nobody else can have it. Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in forward.host_address else socket.AF_INET
    is_tcp = forward.protocol == "tcp"
    opened = socket.socket(family, socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:  # the same port over IPv4 is another one
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_tcp:
            # Connections of a former holder that linger in TIME_WAIT are no obstacle, and only listening tells whether
            # somebody else who allows sharing the address listens already. (For UDP, sharing would mean sharing.)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((forward.host_address, port))
        if is_tcp:
            opened.listen(1)
    except OSError:
        opened.close()
        raise
    return opened


def _owner(forward: PortForward, taken: Taken) -> str:
    for (protocol, address, port), owner in taken.items():
        same = (protocol, port) == (forward.protocol, forward.host_port)
        if same and covers(address, forward.host_address):
            return owner or "?"
    return ""


def _refusal(forward: PortForward, error: OSError) -> BangerError:
    address, port = forward.host_address, forward.host_port
    words = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(forward)
        return _conflict(forward, f"{holder} listens there" if holder else words, _listing(forward))
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"{forward.protocol} port {port} on {address} is not for this user"
        hint = f"choose a port above 1023; or, as root: sysctl net.ipv4.ip_unprivileged_port_start={port}"
        return BangerError(ErrorKind.DENIED, message, subject=str(port), cause=words, hint=hint)
    if error.errno == errno.EMFILE:
        hint = "publish fewer ports, or start the daemon with a higher limit (ulimit -n)"
        return BangerError(ErrorKind.EXHAUSTED, "too many ports to open", subject=str(port), cause=words, hint=hint)
    hint = "choose an address of this host, such as 127.0.0.1"
    return BangerError(ErrorKind.USAGE, f'cannot listen on "{address}"', subject=address, cause=words, hint=hint)


def _listing(forward: PortForward) -> str:
    return f"ss -ln{'t' if forward.protocol == 'tcp' else 'u'}p sport = :{forward.host_port}"


def _conflict(forward: PortForward, cause: str, hint: str) -> BangerError:
    port, address = forward.host_port, forward.host_address
    message = f"{forward.protocol} port {port} on {address} is already taken"
    return BangerError(ErrorKind.CONFLICT, message, subject=at(address, port), cause=cause, hint=hint)
