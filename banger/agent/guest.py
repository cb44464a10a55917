"""One running guest through its agent, as :class:`banger.core.ports.GuestSession`."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from banger.agent import messages
from banger.agent.link import AgentLink
from banger.agent.messages import ExecFlag, ExecSpec, Family, FileKind, PathInfo, PowerOff, Request, Result, Status
from banger.agent.processes import (
    HANGUP_GRACE_S,
    AgentConnection,
    AgentProcess,
    NeverRan,
    describe,
    status_of_copy,
    status_of_exec,
)
from banger.agent.stream import AgentStream
from banger.agent.wire import WireError
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, check_exec
from banger.core.names import check_guest_path
from banger.core.ports import SSH_PORT, GuestPath, GuestProcess

#: How long a short answer may take, in an emulated guest on a busy host.
ANSWER_TIMEOUT_S = 30.0

#: banger's own ssh server, which is in the toolbox: the script that starts it, and where it listens.
_SSH_SERVER, _LOOPBACK = "/run/banger/bin/ssh-server", "127.0.0.1"
#: What is kept of what that script says.
_MOST_WORDS = 4096

#: Exit codes of commands that did not begin: a shell's two, and docker's for what cannot be met.
_CODES = {
    Status.NOT_FOUND: 127,
    Status.NOT_EXECUTABLE: 126,
    Status.NO_USER: 125,
    Status.NO_GROUP: 125,
    Status.NO_DIRECTORY: 125,
    Status.BAD_REQUEST: 125,
}
_KINDS = {FileKind.NOTHING: "missing", FileKind.FILE: "file", FileKind.DIRECTORY: "directory"}


@dataclass(frozen=True, slots=True)
class AgentGuest:
    """Implements :class:`banger.core.ports.GuestSession`."""

    vm_id: str
    link: AgentLink

    @property
    def files(self) -> AgentFiles:
        """Its files."""
        return AgentFiles(self)

    async def exec(self, request: ExecRequest) -> GuestProcess:
        """Start a command of the user's."""
        stream = await self.link.start(exec_spec(request).request())
        if stream.was_started or not stream.result.done():
            return AgentProcess(self.vm_id, stream, status_of_exec)
        result = stream.result.result()
        if result.status in _CODES:
            return NeverRan(describe(result), _CODES[Status(result.status)])
        raise self.refused(result)

    async def ssh(self) -> GuestProcess:
        """Connect to banger's own ssh server in it; one that does not listen yet is started."""
        stream = await self._dial_ssh()
        if not stream.was_started:
            await self._start_ssh()
            stream = await self._dial_ssh()
        if not stream.was_started:
            raise self.refused(stream.result.result())
        return AgentConnection(self.vm_id, stream)

    async def _dial_ssh(self) -> AgentStream:
        return await self.link.start(messages.dial(Family.TCP4, _LOOPBACK, SSH_PORT))

    async def _start_ssh(self) -> None:
        """Run the toolbox's script, which returns once the server listens; what it says is told if that fails."""
        spec = ExecSpec((_SSH_SERVER, f"{_LOOPBACK}:{SSH_PORT}"), flags=ExecFlag.NONE)
        stream = await self.link.start(spec.request())
        process = AgentProcess(self.vm_id, stream, status_of_exec)
        said = b""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                async for _, data in process.output():
                    said = (said + data)[:_MOST_WORDS]
                code = (await process.wait()).code
        except TimeoutError:
            code, said = -1, f"no answer within {ANSWER_TIMEOUT_S:g} s".encode()
        finally:
            await process.close()
        if code:
            raise BangerError(
                ErrorKind.UNAVAILABLE, "the guest's ssh server cannot be started", subject=self.vm_id,
                cause=said.decode(errors="replace").strip(), hint=f"banger vm logs {self.vm_id}",
            )  # fmt: skip

    async def power_off(self, *, by_reboot: bool = False) -> None:
        """Have it power itself off in the image's own way, or reboot; returns once that has begun."""
        await self.ask(messages.poweroff(PowerOff.REBOOT if by_reboot else PowerOff.POWEROFF))

    async def ask(self, request: Request) -> Result:
        """Send a request whose answer is all there is.

        Raises:
            BangerError: ``timeout``; ``unavailable`` if the guest refuses; what :meth:`AgentLink.open` raises.
        """
        stream = await self.link.open(request)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                result = await asyncio.shield(stream.result)
        except TimeoutError:
            message = f"the guest did not answer within {ANSWER_TIMEOUT_S:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=self.vm_id) from None
        finally:
            if not stream.result.done():
                stream.cancel()
        if result.status:
            raise self.refused(result)
        return result

    def refused(self, result: Result) -> BangerError:
        """The error of a request that the guest does not meet."""
        kind = ErrorKind.EXHAUSTED if result.status == Status.BUSY else ErrorKind.UNAVAILABLE
        hint = f"banger vm why {self.vm_id}"
        return BangerError(kind, "the guest refuses", subject=self.vm_id, cause=describe(result), hint=hint)


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """Implements :class:`banger.core.ports.GuestFiles`."""

    guest: AgentGuest

    async def stat(self, path: str) -> GuestPath:
        """What ``path`` is."""
        result = await self.guest.ask(messages.stat(check_guest_path(path)))
        try:
            found = PathInfo.decode(result.fields)
        except WireError as error:
            message = "the guest does not tell what a path is"
            raise BangerError(ErrorKind.UNAVAILABLE, message, cause=str(error)) from error
        kind = _KINDS.get(FileKind(found.leads_to), "other") if found.leads_to in set(FileKind) else "other"
        is_link = found.entry.kind == FileKind.LINK
        return GuestPath(kind, is_link, found.real_path.decode(errors="replace") if is_link else "")

    async def put(self, directory: str) -> AgentProcess:
        """Unpack a tar archive there."""
        return await self._copy(messages.put(check_guest_path(directory)))

    async def get(self, path: str) -> AgentProcess:
        """Pack it as a tar archive."""
        return await self._copy(messages.get(check_guest_path(path)))

    async def _copy(self, request: Request) -> AgentProcess:
        return AgentProcess(self.guest.vm_id, await self.guest.link.open(request), status_of_copy)


def exec_spec(request: ExecRequest) -> ExecSpec:
    """A command of the user's as the agent takes it. Raises ``usage`` for one that no guest can run."""
    check_exec(request)
    tty = request.tty
    given = [f"PWD={request.workdir}"] if request.workdir else []  # as it was named, where links are on the way
    given += [f"TERM={tty.term}"] if tty else []
    return ExecSpec(
        argv=request.argv,
        env=(*given, *request.env),
        user=request.user,
        workdir=request.workdir,
        id=secrets.token_hex(8),
        grace_ms=int(HANGUP_GRACE_S * 1000),
        rows=tty.rows if tty else 0,
        columns=tty.columns if tty else 0,
        flags=ExecFlag.SESSION_ENV | (ExecFlag.TTY if tty else ExecFlag.NONE),
    )
