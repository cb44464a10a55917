"""The resolver as a part of the daemon: its own thread, controlled from any other."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from banger.core.errors import BangerError, ErrorKind
from banger.dns.limits import ConcurrencyLimit
from banger.dns.listener import Listener, MakeSocket
from banger.dns.model import DNS_PORT, DnsSettings, NameServer, World
from banger.dns.resolv_conf import ResolvConf

#: Questions under way at once, altogether and of one asker.
MOST_REQUESTS, MOST_REQUESTS_OF_ONE = 512, 64
#: TCP connections at once, altogether and of one asker.
MOST_CONNECTIONS, MOST_CONNECTIONS_OF_ONE = 128, 16
#: Threads for what the daemon is asked.
WORKERS = 8
#: Seconds that the resolver's thread may take for a request of another thread.
_PATIENCE_S = 10.0
T = TypeVar("T")


class DnsService:
    """See the module. All methods may be called from any thread but the resolver's own.

    Args:
        resolv_conf: who is asked about other names, unless the settings say.
    """

    def __init__(self, settings: DnsSettings, world: World, resolv_conf: Path = Path("/etc/resolv.conf")) -> None:
        self._settings = settings
        self._world = world
        self._resolv_conf = ResolvConf(resolv_conf)
        self._thread: threading.Thread | None = None
        self._running: _Running | None = None

    @property
    def listening(self) -> tuple[NameServer, ...]:
        """Where questions are taken; where programs of this host ask comes first. ``str()`` of each is for people."""
        return tuple(self._running.listening()) if self._running is not None else ()

    def start(self) -> None:
        """Start the thread; returns when questions are taken. What cannot be listened on is logged: VMs run without."""
        if self._thread is not None:
            return
        ready: Future[_Running] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), name="dns", daemon=True)
        self._thread.start()
        try:
            self._running = ready.result(_PATIENCE_S)
        except BaseException:
            self._thread = None
            raise

    def stop(self) -> None:
        """Stop and wait until it has; safe to repeat."""
        if self._thread is None or self._running is None:
            return
        self._running.loop.call_soon_threadsafe(self._running.stop.set)
        self._thread.join(_PATIENCE_S)
        self._thread = self._running = None

    def listen_on(self, address: str, port: int = DNS_PORT, make: MakeSocket = socket.socket) -> None:
        """Take questions at one more address of this host, a bridge's say. Listening there already is success.

        ``make`` gives sockets of another network than the host's, if that is where the address is.

        Raises:
            BangerError: ``conflict`` if somebody else listens there, ``denied``, ``unavailable``.
        """
        running = self._get_running()
        _wait(running, running.listen(NameServer(address, port), make))

    def leave(self, address: str, port: int = DNS_PORT) -> None:
        """Take no more questions there. Idempotent."""
        if self._running is not None:
            _wait(self._running, self._running.leave(NameServer(address, port)))

    def _get_running(self) -> _Running:
        if self._running is None:
            raise BangerError(ErrorKind.UNAVAILABLE, "the resolver does not run", hint="banger daemon logs")
        return self._running

    async def _main(self, ready: Future[_Running]) -> None:
        executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="dns-world")
        try:
            running = _Running(self._settings, self._world, self._resolv_conf, executor)
            await running.listen_for_host()
            ready.set_result(running)
            await running.stop.wait()
            await running.close()
        except Exception as error:  # noqa: BLE001  # the boundary of this thread: whoever waits for it is told
            if ready.done():
                logger.opt(exception=error).error("the resolver ended")
            else:
                ready.set_exception(error)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)  # what hangs in there must not hold up the daemon


class _Running:
    """What lives in the resolver's thread."""

    def __init__(
        self, settings: DnsSettings, world: World, resolv_conf: ResolvConf, executor: ThreadPoolExecutor
    ) -> None:
        # dnspython is loaded here, when it is needed.
        from banger.dns.answerer import Answerer  # noqa: PLC0415
        from banger.dns.upstream import Upstream  # noqa: PLC0415
        from banger.dns.zone import Zone  # noqa: PLC0415

        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        self._settings = settings
        self._listeners: dict[NameServer, Listener] = {}
        self._requests = ConcurrencyLimit(MOST_REQUESTS, MOST_REQUESTS_OF_ONE)
        self._connections = ConcurrencyLimit(MOST_CONNECTIONS, MOST_CONNECTIONS_OF_ONE)
        servers = (lambda: settings.upstream) if settings.upstream else resolv_conf.servers
        upstream = Upstream(servers, self.listening)
        self._answerer = Answerer(
            Zone(settings.suffix),
            world,
            upstream,
            executor,
            lambda: {server.address for server in self._listeners},
            host_forwards=settings.host_forwards,
        )

    def listening(self) -> list[NameServer]:
        return list(self._listeners)

    async def listen_for_host(self) -> None:
        """Listen where the settings say, or beside it."""
        wanted = self._settings.listen
        if wanted is None:
            return
        try:
            await self.listen(wanted)
        except BangerError as error:
            if error.kind is not ErrorKind.CONFLICT:
                logger.warning("{}", error)
                return
            try:
                found = await self.listen(NameServer(wanted.address, 0))
            except BangerError as other:
                logger.warning("{}", other)
                return
            logger.warning("{} is taken: names of VMs are answered at {}", wanted, found)

    async def leave(self, server: NameServer) -> None:
        listener = self._listeners.pop(server, None)
        if listener is not None:
            await listener.close()

    async def listen(self, server: NameServer, make: MakeSocket = socket.socket) -> NameServer:
        if server in self._listeners:
            return server
        listener = Listener(self._answer, self._requests, self._connections)
        found = await listener.open(server, make)
        self._listeners[found] = listener
        logger.info("names below .{} are answered at {}", self._settings.suffix, found)
        return found

    async def close(self) -> None:
        while self._listeners:
            _, listener = self._listeners.popitem()
            await listener.close()

    async def _answer(self, wire: bytes, source: str, tcp: bool) -> bytes | None:
        return await self._answerer.answer(wire, source, tcp=tcp)


def _wait(running: _Running, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in the resolver's thread."""
    return asyncio.run_coroutine_threadsafe(work, running.loop).result(_PATIENCE_S)
