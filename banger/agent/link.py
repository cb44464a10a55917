"""The byte stream to one guest's agent: its ownership, and opening a session on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from banger.agent.endpoint import Endpoint, connect
from banger.agent.heartbeat import GONE
from banger.agent.messages import Request
from banger.agent.session import AgentSession
from banger.agent.stream import AgentStream
from banger.core.errors import BangerError, ErrorKind

#: How long an agent may take to answer the greeting, or to say that it serves a request, in an emulated guest on a busy
#: host. It is given up after as long a silence.
GREETING_TIMEOUT_S, START_TIMEOUT_S = 30.0, 60.0
#: After so long without an answer a greeting is said again, then after twice that, and so on up to the second.
_REPEAT_S, _LONGEST_REPEAT_S = 0.4, 6.4
#: So often a guest that does not answer is looked at, and is given up when nobody in it could have, twice in a row: one
#: whose agent was killed may be about to start another.
_LOOK_S, _LOOKS = 4.0, 2
#: Between two attempts to reach a guest that is not there yet.
_PAUSE_S = 0.1


class AgentLink:
    """The one owner of a VM's byte stream; belongs to the event loop's thread. Connects when it is asked for something.

    Attributes:
        endpoint: the stream's other end.
    """

    def __init__(self, vm_id: str, endpoint: Endpoint, is_attended: Callable[[], bool] = lambda: True) -> None:
        """Connect nothing yet. ``is_attended`` tells whether somebody in the guest has the stream open."""
        self.endpoint = endpoint
        self._is_attended = is_attended
        self._vm_id = vm_id
        self._session: AgentSession | None = None
        self._greeting: asyncio.Task[AgentSession] | None = None  # that all wait for who want a session
        self._dropped = False

    @property
    def streams(self) -> int:
        """How many requests are being served."""
        return self._session.streams if self._session else 0

    async def connect(self, timeout_s: float) -> None:
        """Have a session with a guest that may still be booting. Raises ``timeout``, or ``unavailable`` for good."""
        last = "no answer"
        try:
            async with asyncio.timeout(timeout_s):
                while (error := await self._attempt(timeout_s)) is not None:
                    last = error.cause or error.message
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise BangerError(
                ErrorKind.TIMEOUT,
                f"the guest did not answer within {timeout_s:g} s",
                subject=self._vm_id,
                cause=last,
                hint=f"banger vm logs {self._vm_id}",
            ) from None

    async def session(self, timeout_s: float = GREETING_TIMEOUT_S, *, may_boot: bool = False) -> AgentSession:
        """The session that there is, or a new one if its agent does not answer any more.

        Raises:
            BangerError: ``unavailable`` if the guest cannot be reached, does not answer, or was dropped; unless it
                ``may_boot`` still, also if nobody in it has the stream open.
        """
        if self._session is not None and self._session.is_live and await self._session.answers():
            return self._session
        if self._dropped:
            raise self._unavailable("the VM was stopped meanwhile")
        if self._greeting is None or self._greeting.done():
            self._greeting = asyncio.create_task(self._greet(timeout_s))
            self._greeting.add_done_callback(_mark_seen)
        session = await (asyncio.shield(self._greeting) if may_boot else self._answer(self._greeting))
        if not session.is_live:  # it was lost as soon as it was there
            raise self._unavailable(session.reason)
        return session

    async def open(self, request: Request) -> AgentStream:
        """Send a request, once the guest has taken what was sent before.

        Raises:
            BangerError: what :meth:`session` and :meth:`AgentSession.open` raise; ``unavailable`` if the guest takes
                nothing, or is lost meanwhile.
        """
        session = await self.session()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await session.room()
        except TimeoutError:
            session.ping()
            raise self._unavailable(f"it has read nothing for {START_TIMEOUT_S:g} s") from None
        if not session.is_live:
            raise self._unavailable("the connection was lost")
        return session.open(request)

    async def start(self, request: Request) -> AgentStream:
        """Send a request whose start the agent tells, and wait until it does, or says why not: then there is a result.

        Raises:
            BangerError: what :meth:`open` raises; ``unavailable`` if the agent says nothing.
        """
        stream = await self.open(request)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await stream.started.wait()
        except TimeoutError:
            stream.cancel()
            raise self._unavailable(f"no answer within {START_TIMEOUT_S:g} s") from None
        except BaseException:
            stream.cancel()
            raise
        return stream

    def drop(self, reason: str = "the VM was stopped") -> None:
        """Close the stream, for good."""
        self._dropped = True
        if self._session is not None:
            self._session.end(reason)

    async def _attempt(self, timeout_s: float) -> BangerError | None:
        """Why there is no session yet; raises it if there will be none."""
        try:
            await self.session(timeout_s, may_boot=True)
        except BangerError as error:
            if self._dropped:
                raise
            return error
        return None

    async def _answer(self, greeting: asyncio.Task[AgentSession]) -> AgentSession:
        missed = 0
        while not (await asyncio.wait((greeting,), timeout=_LOOK_S))[0]:
            missed = 0 if await asyncio.to_thread(self._is_attended) else missed + 1
            if missed == _LOOKS:
                raise self._unavailable(GONE, f"banger vm restart {self._vm_id}")
        return await asyncio.shield(greeting)

    async def _greet(self, timeout_s: float) -> AgentSession:
        try:
            session = await connect(self.endpoint, lambda: AgentSession(self._vm_id, self._is_attended))
        except FileNotFoundError as error:
            cause = f"it has no {self.endpoint.path.name}, so its machine is gone, or was started by an older banger"
            raise self._unavailable(cause, f"banger vm restart {self._vm_id}") from error
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from error
        self._session = session
        if self._dropped:
            session.end("the VM was stopped")
        try:
            async with asyncio.timeout(timeout_s):
                await _greeted(session)
        except TimeoutError:
            session.end("no answer")
            raise self._unavailable(f"no answer within {timeout_s:g} s") from None
        except BaseException:
            session.end("given up")
            raise
        return session

    def _unavailable(self, cause: str, hint: str = "") -> BangerError:
        return BangerError(
            ErrorKind.UNAVAILABLE,
            "the guest cannot be reached",
            subject=self._vm_id,
            cause=cause,
            hint=hint or f"banger vm why {self._vm_id}",
        )


async def _greeted(session: AgentSession) -> None:
    """Wait for the answer to a greeting. One that the guest took in before it knew of our connection may be lost on it.

    (virtio_console learns of data by an interrupt, and of who is connected by a work queue.)
    """
    patience_s = _REPEAT_S
    while True:
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(session.greeted)
                return
        except TimeoutError:
            session.greet()
            patience_s = min(2 * patience_s, _LONGEST_REPEAT_S)


def _mark_seen(greeting: asyncio.Task[AgentSession]) -> None:
    """Nobody may be left who waits for it."""
    if not greeting.cancelled():
        greeting.exception()
