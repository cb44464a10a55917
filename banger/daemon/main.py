"""The daemon process: configuration, lock, wiring, serving, orderly shutdown."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pykka
from loguru import logger

from banger import __version__
from banger.actors.messages import DeleteVm, ReconcileHost
from banger.api.app import make_app
from banger.config import Config
from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.states import LIVE
from banger.daemon import descriptors, logs
from banger.daemon.host_shutdown import host_goes_down, suspend_all
from banger.daemon.listening import Listening
from banger.daemon.notify import notify, watchdog_interval_s
from banger.daemon.wiring import Daemon, wire
from banger.host import reserve
from banger.layout import Layout
from banger.posix.files import open_regular
from banger.vmm.log_files import LIMIT_BYTES, bound, limits_of

#: Half a thousand actors with pykka's default stack would map gigabytes.
THREAD_STACK_BYTES = 512 * 1024
#: Rarer garbage collections: making an image makes hundreds of thousands of objects that all stay, and going through
#: them time and again was a tenth of the work.
GC_THRESHOLDS = (50_000, 20, 100)
#: How long the first reconcile may keep callers waiting, in seconds.
FIRST_RECONCILE_S = 10.0
#: How often the logs of running machines, and our own, are kept from growing without end, in seconds.
LOG_INTERVAL_S = 10.0
#: How often VMs are looked at whose time may be over, in seconds.
HOUSEKEEPING_INTERVAL_S = 5.0
#: How often it is looked whether callers can still find our socket, in seconds.
SOCKET_INTERVAL_S = 2.0
#: What the process ends with if an owner did not end in time (``EX_SOFTWARE``, sysexits(3)).
STUCK_EXIT_CODE = 70


def main(*, foreground: bool = True, dev: bool = False) -> int:
    """Run until told to stop; returns the exit code.

    Args:
        foreground: a person or a service manager started it, not the CLI on the way to something else.
        dev: log in colour for a person at a terminal.

    Raises:
        BangerError: ``conflict`` if another daemon serves this state directory, ``denied`` if it can't be used.
    """
    threading.stack_size(THREAD_STACK_BYTES)
    gc.set_threshold(*GC_THRESHOLDS)
    descriptors.raise_limit()
    layout = Layout.from_environment()
    config = Config.load(layout.config_file)
    logs.set_up(config.text("daemon.log_level"), dev=dev)
    os.umask(0o077)
    try:
        layout.make_directories()
    except OSError as error:
        raise BangerError(
            ErrorKind.DENIED, f'cannot use the state directory "{layout.data}"', subject=str(layout.data),
            cause=str(error), hint="set BANGER_HOME to a directory of yours",
        ) from error  # fmt: skip
    reserve.give_up(layout)
    with _lock(layout):
        logger.debug("started {}", "in the foreground" if foreground else "by the CLI")
        try:
            return asyncio.run(_serve(layout, config))
        finally:
            pykka.ActorRegistry.stop_all(block=False)  # a start that failed halfway must not live on in its threads


@contextmanager
def _lock(layout: Layout) -> Iterator[None]:
    """Be the one daemon of this state directory. The kernel drops the lock with the process, however it ends."""
    try:
        descriptor = open_regular(layout.lock_file, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        cause = error.strerror or str(error)
        raise BangerError(
            ErrorKind.DENIED, f'cannot open "{layout.lock_file}"', subject=str(layout.lock_file), cause=cause
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode(errors="replace").strip()
            raise BangerError(
                ErrorKind.CONFLICT,
                f'another daemon serves "{layout.data}"',
                subject=str(layout.data),
                cause=f"pid {pid}" if pid else "",
                hint="banger daemon status",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


async def _serve(layout: Layout, config: Config) -> int:
    loop = asyncio.get_running_loop()
    descriptors.quieten(loop)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.signal(signal.SIGUSR1, lambda *_: _dump_threads())
    daemon = wire(layout, config, loop, stop=lambda: loop.call_soon_threadsafe(stop.set))
    await asyncio.to_thread(daemon.dns.start)
    await _reconcile_once(daemon, at_start=True)
    await asyncio.to_thread(daemon.housekeeper.begin)
    await asyncio.to_thread(daemon.templates.begin)
    listening = Listening(make_app(daemon.context), layout)
    await listening.begin()
    await asyncio.to_thread(reserve.set_aside, layout)
    gc.freeze()  # what is here now stays
    logger.info("banger {} serves {} (pid {})", __version__, layout.socket, os.getpid())
    notify(f"READY=1\nSTATUS=serving {layout.socket}")
    tasks = [
        asyncio.create_task(_reconcile(daemon, config.seconds("daemon.reconcile_interval_s"))),
        asyncio.create_task(_bound_logs(daemon)),
        asyncio.create_task(_keep_house(daemon)),
        asyncio.create_task(_keep_socket(listening)),
        asyncio.create_task(_watchdog()),
    ]
    await stop.wait()
    if config.text("daemon.on_shutdown") == "suspend" and await asyncio.to_thread(host_goes_down):
        logger.info("the host goes down: running VMs are suspended, and brought back after its boot")
        daemon.doorbells.close()  # nobody wakes one of them any more
        vms = daemon.context.store.vms.all()
        await asyncio.to_thread(suspend_all, vms, daemon.context.supervisor.submit, notify)
    logger.info("stopping: running VMs go on, but for those that sessions hold")
    notify("STOPPING=1")
    await asyncio.to_thread(_end_attended, daemon, config.seconds("daemon.shutdown_timeout_s"))
    listening.tell_end()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    clean = await asyncio.to_thread(daemon.context.supervisor.shutdown, config.seconds("daemon.shutdown_timeout_s"))
    await listening.end()
    await daemon.close()
    layout.socket.unlink(missing_ok=True)
    if not clean:
        _dump_threads()
        logger.error("an owner did not end in time; the next start reconciles what it left")
        os._exit(STUCK_EXIT_CODE)
    logger.info("stopped")
    return 0


def _end_attended(daemon: Daemon, timeout_s: float) -> None:
    """Delete the VMs of the sessions that end with us. What is not done in time the next daemon does."""
    deadline = Deadline.after(timeout_s)
    deletions = [
        daemon.context.supervisor.submit(DeleteVm(vm_id, name, force=True), deadline)
        for vm_id, name in daemon.attendance.all()
    ]
    for deletion in deletions:
        with suppress(BangerError):
            deletion.wait()


async def _reconcile(daemon: Daemon, interval_s: float) -> None:
    """Reconcile everything on a tick."""
    while True:
        await asyncio.sleep(interval_s)
        await _reconcile_once(daemon, at_start=False)


async def _reconcile_once(daemon: Daemon, *, at_start: bool) -> None:
    """Reconcile everything. At the start nothing is served before it is done, unless it takes long."""
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()
    deadline = Deadline.after(FIRST_RECONCILE_S if at_start else None)
    waiter = daemon.context.supervisor.submit(ReconcileHost(at_start=at_start))
    waiter.when_answered(lambda: loop.call_soon_threadsafe(answered.set))
    with suppress(TimeoutError):
        await asyncio.wait_for(answered.wait(), deadline.remaining_s)


async def _bound_logs(daemon: Daemon) -> None:
    """A guest may write to its console forever, or make its VMM complain; each log keeps the end of it.

    Once there is room again, some of it is set aside for the next time.
    """
    layout, store = daemon.context.layout, daemon.context.store

    def bound_all() -> None:
        live = [layout.vm_dir(vm.id) for vm in store.vms.all() if vm.state in LIVE]
        _bound_all([(layout.daemon_log, LIMIT_BYTES), *(one for place in live for one in limits_of(place))])

    await _every(LOG_INTERVAL_S, lambda: (bound_all, lambda: reserve.set_aside(layout)))


async def _keep_house(daemon: Daemon) -> None:
    """Look after VMs whose time may be over."""
    await _every(HOUSEKEEPING_INTERVAL_S, lambda: (daemon.templates.tick, *daemon.housekeeper.chores))


async def _every(interval_s: float, chores: Callable[[], Sequence[Callable[[], None]]]) -> None:
    """Do all chores time and again, each in a thread: one that fails is neither the last nor hinders the others."""
    while True:
        await asyncio.sleep(interval_s)
        for chore in chores():
            try:
                await asyncio.to_thread(chore)
            except Exception:  # noqa: BLE001  # see the docstring
                logger.exception("looking after VMs failed")


def _bound_all(logs: Sequence[tuple[Path, int]]) -> None:
    for log, limit_bytes in logs:
        try:
            bound(log, limit_bytes)
        except OSError as error:  # a full disk above all; one log must not keep the others from being cut
            logger.warning("cannot cut {}: {}", log, error)


async def _keep_socket(listening: Listening) -> None:
    """Be found by callers as long as we run."""
    while True:
        await asyncio.sleep(SOCKET_INTERVAL_S)
        await listening.keep()


async def _watchdog() -> None:
    """Tell systemd that the loop still turns."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


def _dump_threads() -> None:
    """Where every thread stands, into the log (also on SIGUSR1)."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  # the documented way to see other threads
        logger.info("thread {}:\n{}", names.get(ident, ident), "".join(traceback.format_stack(frame)))
