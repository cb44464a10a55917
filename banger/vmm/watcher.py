"""Noticing that a VMM process has ended, whoever its parent is."""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from banger.core.models import ProcessIdentity
from banger.vmm import identity as processes

#: ``(vm_id, identity, status)``: exit code or minus the signal where we were the parent, else ``None``.
ExitCallback = Callable[[str, ProcessIdentity, int | None], None]


@dataclass(frozen=True, slots=True)
class _Watched:
    vm_id: str
    identity: ProcessIdentity


class ExitWatcher:
    """One thread waits on the pidfds of all VMM processes.

    The callback runs in that thread, once for every watched process, and should only pass the news on. It may call
    :meth:`watch` and :meth:`unwatch`.
    """

    def __init__(self, on_exit: ExitCallback) -> None:
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._watched: dict[int, _Watched] = {}
        self._pidfds: dict[str, int] = {}
        self._gone: deque[_Watched] = deque()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="exit-watcher", daemon=True)
        self._thread.start()

    def watch(self, vm_id: str, identity: ProcessIdentity) -> None:
        """Tell when this very process ends; at once if it has. Replaces what was watched for ``vm_id``."""
        pidfd = processes.open_pidfd(identity)
        watched = _Watched(vm_id, identity)
        with self._lock:
            self._forget(vm_id)
            if self._closed:
                if pidfd is not None:
                    os.close(pidfd)
                return
            if pidfd is not None:
                self._watched[pidfd] = watched
                self._pidfds[vm_id] = pidfd
                self._epoll.register(pidfd, select.EPOLLIN)
                return
            self._gone.append(watched)
            os.eventfd_write(self._wake, 1)

    def unwatch(self, vm_id: str) -> None:
        """Stop watching; nothing is called for ``vm_id`` any more, unless its call has already begun."""
        with self._lock:
            self._forget(vm_id)

    def close(self) -> None:
        """Stop watching everything and end the thread; idempotent. Watched processes go on."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for watched in list(self._watched.values()):
                self._forget(watched.vm_id)
            self._gone.clear()
            os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _forget(self, vm_id: str) -> None:
        for watched in [watched for watched in self._gone if watched.vm_id == vm_id]:
            self._gone.remove(watched)
        pidfd = self._pidfds.pop(vm_id, None)
        if pidfd is not None:
            del self._watched[pidfd]
            self._epoll.unregister(pidfd)
            os.close(pidfd)

    def _run(self) -> None:
        try:
            while not self._closed:
                for descriptor, _ in self._epoll.poll():
                    if descriptor == self._wake:
                        self._drain()
                    else:
                        self._report(descriptor)
        finally:
            self._epoll.close()
            os.close(self._wake)

    def _drain(self) -> None:
        os.eventfd_read(self._wake)
        while True:
            with self._lock:
                if not self._gone:
                    return
                watched = self._gone.popleft()
            processes.wait_gone(watched.identity, 0.0)
            self._tell(watched, processes.exit_status(watched.identity))

    def _report(self, pidfd: int) -> None:
        with self._lock:
            watched = self._watched.get(pidfd)
            # The number may belong to another process by now: unwatched and reused since the event was queued.
            if watched is None or not processes.has_exited(pidfd):
                return
            status = processes.reap(pidfd, watched.identity)
            self._forget(watched.vm_id)
        self._tell(watched, status)

    def _tell(self, watched: _Watched, status: int | None) -> None:
        try:
            self._on_exit(watched.vm_id, watched.identity, status)
        except Exception:  # noqa: BLE001  # the boundary: one broken listener must not end the watch over all others
            logger.exception("the listener to exits failed for {}", watched.identity.marker)
