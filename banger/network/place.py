"""Where the bridge and the taps of a network are: in the host's network namespace, or in one of their own.

The ``tap`` network (:mod:`banger.network.tap`) is the same in both. All that it does to a network stack, it has done by
:meth:`Place.run`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from banger.core.egress import Network
from banger.core.ports import HostObject
from banger.network.probe import available
from banger.network.sysctl import enable_forwarding

P = ParamSpec("P")
T = TypeVar("T")


class Place(Protocol):
    """One network stack.

    Attributes:
        network: what VMs call it: the value of ``spec.network``.
        is_apart: the host's kernel sends nothing into it: published ports are forwarded by a process.
    """

    network: str
    is_apart: bool

    def obstacle(self) -> str:
        """Why there can be no taps here, and what to type; empty if there can."""
        ...

    def exists(self) -> bool:
        """What was made here may still be here."""
        ...

    def open(self) -> str:
        """Have it. Idempotent. A warning for whoever starts a VM, or nothing. Raises ``unavailable``."""
        ...

    def close(self) -> None:
        """No VM needs it any more. Idempotent."""
        ...

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of a module of ours there."""
        ...

    def route(self, *, ipv6: bool) -> None:
        """Let packets be forwarded."""
        ...

    def refused(self) -> Sequence[Network]:
        """What no guest may reach from here, because the host answers there."""
        ...

    def entering(self) -> tuple[str, ...]:
        """The command that starts a program here, to be put before it; empty if it is here anyway."""
        ...

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket that belongs here."""
        ...

    def host_objects(self) -> Sequence[HostObject]:
        """What is on the host because of the place itself."""
        ...


class HostPlace:
    """The host's own network namespace, for root or CAP_NET_ADMIN. ``state_file`` remembers what was switched on."""

    network = "tap"
    is_apart = False

    def __init__(self, state_file: Path) -> None:
        self._state_file = state_file

    def obstacle(self) -> str:
        """What :func:`banger.network.probe.available` finds."""
        can, reason = available()
        return "" if can else reason

    def exists(self) -> bool:
        """If anything could be made."""
        return not self.obstacle()

    def open(self) -> str:
        """It is here."""
        return ""

    def close(self) -> None:
        """It stays."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it."""
        return function(*args, **kwargs)

    def route(self, *, ipv6: bool) -> None:
        """Make the host a router."""
        enable_forwarding(self._state_file, ipv6=ipv6)

    def refused(self) -> Sequence[Network]:
        """The rules tell what is for the host by where the kernel takes it."""
        return ()

    def entering(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def socket(self, family: int, kind: int) -> socket.socket:
        """Any."""
        return socket.socket(family, kind)

    def host_objects(self) -> Sequence[HostObject]:
        """None."""
        return ()
