"""The published ports of suspended VMs, held open: who comes to one rings, waits, and is let in by the woken VM.

Nothing is accepted here. The kernel completes connections and queues what they send; the forwarder of the woken VM
inherits the very same sockets and serves the queue. Of UDP, it is the datagrams that wait.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from loguru import logger

from banger.core.wire.port_forward import PortForward
from banger.forwarding.host_ports import BACKLOG, Bound, Taken

#: ``(protocol, address, port)``.
Place = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Door:
    """What is held for one VM."""

    name: str
    sockets: Mapping[Place, socket.socket]


class Doorbells:
    """Of all suspended VMs of one daemon. Thread-safe; rings in a thread of its own."""

    def __init__(self, ring: Callable[[str], object]) -> None:
        """``ring`` takes a VM's id, once for each time that its ports are held."""
        self._ring = ring
        self._lock = threading.Lock()
        self._doors: dict[str, _Door] = {}
        self._owners: dict[int, str] = {}  # by descriptor: the VM
        self._listening: _Listening | None = None
        self._is_closed = False

    def holds(self, vm_id: str) -> bool:
        """Its ports are held here."""
        with self._lock:
            return vm_id in self._doors

    def hold(self, vm_id: str, name: str, bound: Sequence[Bound]) -> None:
        """Hold these, which stay the caller's too. Idempotent, and nothing once this is closed."""
        with self._lock:
            if vm_id in self._doors or self._is_closed:
                return
            listening = self._listening = self._listening or _Listening(self._came)
            door = _Door(name, {place_of(forward): opened.dup() for forward, opened in bound})
            self._doors[vm_id] = door
            for opened in door.sockets.values():
                if opened.type == socket.SOCK_STREAM:
                    opened.listen(BACKLOG)
                self._owners[opened.fileno()] = vm_id
                listening.add(opened.fileno())

    def take(self, vm_id: str) -> Mapping[Place, socket.socket]:
        """Hand them over, with whoever waits there; they are the caller's to close."""
        with self._lock:
            door = self._doors.pop(vm_id, None)
            if door is None:
                return {}
            for opened in door.sockets.values():
                self._owners.pop(opened.fileno(), None)
                if self._listening is not None:
                    self._listening.remove(opened.fileno())
            return door.sockets

    def let_go(self, vm_id: str) -> None:
        """Close them: who waits there is refused."""
        for opened in self.take(vm_id).values():
            opened.close()

    def taken(self, besides: str) -> Taken:
        """What is held for other VMs than ``besides``, with their names."""
        with self._lock:
            return {
                place: door.name for vm_id, door in self._doors.items() if vm_id != besides for place in door.sockets
            }

    def close(self) -> None:
        """Let go of all, and ring no more. Idempotent."""
        with self._lock:
            self._is_closed = True
            held = list(self._doors)
        for vm_id in held:
            self.let_go(vm_id)
        if self._listening is not None:
            self._listening.close()

    def _came(self, descriptor: int) -> None:
        with self._lock:
            vm_id = self._owners.get(descriptor, "")
            door = self._doors.get(vm_id)
        if door is not None:
            logger.info("{}: somebody comes to a published port", door.name)
            self._ring(vm_id)


class _Listening:
    """A thread that waits for many sockets at once, and tells of each only once."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._epoll = select.epoll()
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll.register(self._end, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="doorbells", daemon=True)
        self._thread.start()

    def add(self, descriptor: int) -> None:
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)

    def remove(self, descriptor: int) -> None:
        with suppress(OSError, ValueError):  # this was closed
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        if not self._epoll.closed:
            os.eventfd_write(self._end, 1)
            self._thread.join()
            self._epoll.close()
            os.close(self._end)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._end:
                    return
                self._tell(descriptor)


def place_of(forward: PortForward) -> Place:
    """Where a chosen port is."""
    return forward.protocol, forward.host_address, forward.host_port
