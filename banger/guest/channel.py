"""The supervisor's channel into guests: kept ssh connections to every running VM, all in one event loop.

Some methods block and are called from threads; the others are awaited in the loop itself. A command runs
on a connection that is there already, so a warm ``exec`` costs no key exchange.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import asyncssh

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.exec import ExecRequest, Terminal
from banger.core.models import GuestAccess
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.guest.channel_link import GuestLink
from banger.guest.command import exec_command, tool_command
from banger.guest.sessions import GuestSession

#: What :meth:`GuestChannels.run` keeps of a command's output, in bytes; the rest is read and dropped.
MAX_RUN_OUTPUT = 1 << 20
#: How much longer than the work's own timeout a thread waits for an event loop that may have stopped.
_LOOP_GRACE_S = 5.0

_Result = TypeVar("_Result")


class GuestChannels:
    """The connections, by VM."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use ``loop``, which runs in a thread of its own (the daemon's)."""
        self._loop = loop
        self._links: dict[str, GuestLink] = {}
        self._unwanted: set[asyncio.Task[Any]] = set()  # a task that nobody refers to may be collected half done
        asyncssh.set_log_level(logging.WARNING)  # at INFO it logs every command
        # asyncssh wants to know the name of our user, which it has no use for here; in a container there may be none.
        os.environ.setdefault("LOGNAME", str(os.getuid()))

    # -- from threads -----------------------------------------------------------------------------------

    def connect(
        self, access: GuestAccess, operation: Operation, timeout_s: float, token: CancelToken | None = None
    ) -> None:
        """Connect, strictly checking the host key, and keep the connection; leaves at once when cancelled.

        Raises:
            BangerError: ``timeout``; ``denied`` for a wrong host key, without trying again; ``cancelled``.
        """
        token = token or operation.haste
        token.raise_if_cancelled()
        seconds = operation.deadline.at_most(timeout_s)
        self._call(self._connect(access, seconds), seconds, token)

    def run(
        self, access: GuestAccess, command: str, timeout_s: float, token: CancelToken | None = None
    ) -> tuple[int, bytes]:
        """Run one of banger's own commands; its exit code and the first ``MAX_RUN_OUTPUT`` bytes of both streams.

        Raises:
            BangerError: ``timeout`` (the command is killed then), ``cancelled``, and what :meth:`open_session` raises.
        """
        return self._call(self._run(access, command, timeout_s), timeout_s, token)

    def disconnect(self, vm_id: str) -> None:
        """Drop the connection, if there is one. Sessions on it fail with ``unknown_outcome``."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop, vm_id)

    def connections(self, vm_id: str) -> tuple[int, int]:
        """How many connections to a guest are kept, and how many of them a command uses now."""
        link = self._links.get(vm_id)
        return link.connections if link else (0, 0)

    # -- in the loop ------------------------------------------------------------------------------------

    async def open_session(self, access: GuestAccess, request: ExecRequest) -> GuestSession:
        """Start a command of the user's. A connection that was lost is made anew, once.

        Raises:
            BangerError: ``usage`` for a command that cannot be sent; ``unavailable`` if the guest cannot be reached
                or refuses; ``unknown_outcome`` if the connection was lost when the command had perhaps begun.
        """
        exec_id = new_id()
        return await self._open(access, exec_command(request, exec_id), request.tty, exec_id)

    async def open_tool(self, access: GuestAccess, args: Sequence[str]) -> GuestSession:
        """Start a toolbox applet with its arguments (``tar``, say); raises what :meth:`open_session` raises."""
        return await self._open(access, tool_command(args))

    async def close(self) -> None:
        """Drop every connection; the daemon is ending."""
        links = list(self._links.values())
        for link in links:
            self._drop(link.access.vm_id)
        for link in links:
            await link.wait_dropped()
        while self._unwanted:
            await asyncio.wait(self._unwanted)

    # -- inside the loop -------------------------------------------------------------------------------

    async def _connect(self, access: GuestAccess, timeout_s: float) -> None:
        await self._link(access).connect(timeout_s)

    async def _open(
        self, access: GuestAccess, command: str, tty: Terminal | None = None, exec_id: str = ""
    ) -> GuestSession:
        opening = asyncio.create_task(self._link(access).open(command, tty, exec_id))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._unwanted.add(opening)
            opening.add_done_callback(self._close_unwanted)
            raise

    def _close_unwanted(self, opening: asyncio.Task[GuestSession]) -> None:
        """End a command whose caller left while it was being started."""
        self._unwanted.discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            closing = self._loop.create_task(opening.result().close())
            self._unwanted.add(closing)
            closing.add_done_callback(self._unwanted.discard)

    async def _run(self, access: GuestAccess, command: str, timeout_s: float) -> tuple[int, bytes]:
        printed = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                session = await self._open(access, command)
                try:
                    session.write_eof()
                    async for _, data in session.output():
                        printed += data[: MAX_RUN_OUTPUT - len(printed)]
                    return (await session.wait()).code, bytes(printed)
                finally:
                    await session.close()
        except TimeoutError:
            raise BangerError(
                ErrorKind.TIMEOUT, f'"{command}" did not end within {timeout_s:g} s', subject=access.vm_id
            ) from None

    def _link(self, access: GuestAccess) -> GuestLink:
        link = self._links.get(access.vm_id)
        if link is None or link.access != access:  # a restarted VM has another port
            if link is not None:
                link.drop()
            link = self._links[access.vm_id] = GuestLink(access)
        return link

    def _drop(self, vm_id: str) -> None:
        link = self._links.pop(vm_id, None)
        if link is not None:
            link.drop()

    def _call(self, work: Coroutine[Any, Any, _Result], timeout_s: float, token: CancelToken | None = None) -> _Result:
        """Run ``work`` in the loop and wait for it here."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise cancelled("the daemon is shutting down") from error

        def abandon() -> None:
            future.cancel()

        forget = token.on_cancel(abandon) if token else abandon
        try:
            return future.result(timeout_s + _LOOP_GRACE_S)
        except concurrent.futures.CancelledError:
            raise cancelled(token.reason if token and token.cancelled else "the daemon is shutting down") from None
        except TimeoutError:
            future.cancel()
            raise BangerError(ErrorKind.TIMEOUT, f"no answer within {timeout_s:g} s") from None
        finally:
            forget()
