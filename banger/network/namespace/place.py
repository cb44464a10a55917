"""The namespaces as a place for taps; see :class:`banger.network.place.Place`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from loguru import logger

from banger.core.crashpoints import crashpoint
from banger.core.egress import Network
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.ports import HostObject
from banger.network import links
from banger.network.namespace import probe
from banger.network.namespace.client import Worker
from banger.network.namespace.holder import find_holder, start_holder
from banger.network.namespace.holder import marker_of as holder_marker
from banger.network.namespace.uplink import UPLINK, command_line, find_uplink, remedy_of, start_uplink
from banger.network.namespace.uplink import marker_of as uplink_marker
from banger.network.namespace.worker import make_socket
from banger.network.sysctl import route_packets
from banger.posix.programs import require_program
from banger.vmm import identity as processes

P = ParamSpec("P")
T = TypeVar("T")

_KILL_TIMEOUT_S = 10.0


class NamespacePlace:
    """Implements :class:`banger.network.place.Place`. Thread-safe.

    Args:
        installation_id: whose.
        run_dir: of the installation: tells people whose the processes are.
        renewed: called when the namespaces are new, or gone: sockets that were made there are of no use any more.
    """

    network = "user"
    is_apart = True

    def __init__(self, installation_id: str, run_dir: Path, renewed: Callable[[], None] = lambda: None) -> None:
        self._id = installation_id
        self._run_dir = run_dir
        self._renewed = renewed
        self._lock = threading.RLock()
        self._holder: ProcessIdentity | None = None
        self._uplink: ProcessIdentity | None = None
        self._worker: Worker | None = None

    def obstacle(self) -> str:
        """What this user or this host lacks."""
        return probe.obstacle()

    def exists(self) -> bool:
        """A holder runs, or an uplink that has lost it."""
        return self._found_holder() is not None or find_uplink(self._id) is not None

    def open(self) -> str:
        """Have the namespaces, and a way out of them if the host has one."""
        with self._lock:
            holder = self._found_holder()
            if holder is None:
                self._forget()
                if (orphan := find_uplink(self._id)) is not None:  # it would serve namespaces that nobody enters again
                    logger.warning("VMs that run are cut off, as what held their network was ended: restart them")
                    _end(orphan)
                holder = self._holder = start_holder(self._id, self._run_dir)
                crashpoint("namespace.open:held")
                self._renewed()
            return self._connect(holder)

    def close(self) -> None:
        """End the uplink, then the holder: with them, all that was made there is gone."""
        with self._lock:
            self._forget()
            failures: list[BangerError] = []
            for found in filter(None, (find_uplink(self._id), find_holder(self._id))):
                try:
                    _end(found)
                except BangerError as error:  # the other one goes all the same
                    failures.append(error)
            self._holder = self._uplink = None
            self._renewed()
            if failures:
                raise failures[0]

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it in the worker, which is started at the first need, and anew after it was lost."""
        with self._lock:
            worker = self._living_worker()
        result: T = worker.call(function, args, kwargs)
        return result

    def route(self, *, ipv6: bool) -> None:
        """Forward packets in there; the host's own settings stay."""
        self.run(route_packets, ipv6=ipv6)

    def refused(self) -> Sequence[Network]:
        """What the host takes for itself: ``pasta`` connects from the host, where these are at home."""
        return links.own_networks()

    def entering(self) -> tuple[str, ...]:
        """For VMMs and forwarders. Raises ``unavailable`` without namespaces."""
        return probe.entry().without_rights(self._need_holder().pid)

    def socket(self, family: int, kind: int) -> socket.socket:
        """Made by the worker, and passed."""
        return self.run(make_socket, family, kind)

    def host_objects(self) -> Sequence[HostObject]:
        """Both processes that outlive a daemon."""
        found = (
            ("netns", holder_marker(self._id), "holds the network namespace of VMs", self._found_holder()),
            ("pasta", uplink_marker(self._id), "connects that namespace to the world", find_uplink(self._id)),
        )
        return [
            HostObject(kind, marker, "", reason, self.close, shared=True)
            for kind, marker, reason, identity in found
            if identity is not None
        ]

    def _connect(self, holder: ProcessIdentity) -> str:
        uplink = self._uplink if self._uplink and processes.is_same(self._uplink) else find_uplink(self._id)
        if uplink is None:
            entry = probe.entry()
            argv = command_line(uplink_marker(self._id), holder.pid, is_root=entry.is_root)
            uplink, why = start_uplink(require_program(probe.PROGRAM), argv, self._has_uplink)
            if uplink is None:
                logger.warning("VMs have no way out of their network namespace: {}", why)
                return f"this VM reaches nothing beyond this host: pasta does not start: {why} ({remedy_of(why)})"
            crashpoint("namespace.open:connected")
        self._uplink = uplink
        return ""

    def _has_uplink(self) -> bool:
        return self.run(links.has_default_route, UPLINK)

    def _found_holder(self) -> ProcessIdentity | None:
        if self._holder is None or not processes.is_same(self._holder):
            self._holder = find_holder(self._id)
        return self._holder

    def _need_holder(self) -> ProcessIdentity:
        holder = self._found_holder()
        if holder is None:
            raise BangerError(
                ErrorKind.UNAVAILABLE, "the network namespace of VMs is gone", hint="banger system reconcile"
            )
        return holder

    def _living_worker(self) -> Worker:
        if self._worker is not None and not self._worker.is_alive:
            self._forget()
        if self._worker is None:
            self._worker = Worker(probe.entry().with_rights(self._need_holder().pid))
        return self._worker

    def _forget(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            with suppress(OSError):
                worker.close()


def _end(identity: ProcessIdentity) -> None:
    try:
        processes.kill(identity)
    except PermissionError as error:
        raise BangerError(
            ErrorKind.DENIED, f"the process {identity.pid} of the network of VMs cannot be ended",
            subject=identity.marker, cause=error.strerror or "", hint=remedy_of("not permitted"),
        ) from error  # fmt: skip
    if not processes.wait_gone(identity, _KILL_TIMEOUT_S):
        raise BangerError(
            ErrorKind.TIMEOUT, f"the process {identity.pid} did not end within {_KILL_TIMEOUT_S:g} s of being killed",
            subject=identity.marker, hint=f"cat /proc/{identity.pid}/stack",
        )  # fmt: skip
