"""One running guest through its agent, as :class:`banger.core.ports.GuestSession`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from banger.agent import messages
from banger.agent.asking import ANSWER_TIMEOUT_S, Asker
from banger.agent.files import AgentFiles
from banger.agent.link import AgentLink
from banger.agent.machine import AgentMachine
from banger.agent.messages import ExecFlag, ExecSpec, Family, PowerOff, Status
from banger.agent.processes import (
    HANGUP_GRACE_S,
    AgentConnection,
    AgentProcess,
    NeverRan,
    describe,
    status_of_exec,
)
from banger.agent.stream import AgentStream
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, check_exec
from banger.core.ports import SSH_PORT, GuestProcess

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


@dataclass(frozen=True, slots=True)
class AgentGuest:
    """Implements :class:`banger.core.ports.GuestSession`."""

    vm_id: str
    link: AgentLink

    @property
    def files(self) -> AgentFiles:
        """Its files."""
        return AgentFiles(self.asker)

    @property
    def machine(self) -> AgentMachine:
        """Its figures, clock and identity."""
        return AgentMachine(self.asker)

    @property
    def asker(self) -> Asker:
        """For what is no command."""
        return Asker(self.vm_id, self.link)

    async def exec(self, request: ExecRequest) -> GuestProcess:
        """Start a command of the user's."""
        stream = await self.link.start(exec_spec(request).request())
        if stream.was_started or not stream.result.done():
            return AgentProcess(self.vm_id, stream, status_of_exec)
        result = stream.result.result()
        if result.status in _CODES:
            return NeverRan(describe(result), _CODES[Status(result.status)])
        raise self.asker.refusal(result)

    async def ssh(self) -> GuestProcess:
        """Connect to banger's own ssh server in it; one that does not listen yet is started."""
        stream = await self._dial_ssh()
        if not stream.was_started:
            await self._start_ssh()
            stream = await self._dial_ssh()
        if not stream.was_started:
            raise self.asker.refusal(stream.result.result())
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
        await self.asker.ask(messages.poweroff(PowerOff.REBOOT if by_reboot else PowerOff.POWEROFF))


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
        grace_ms=int(HANGUP_GRACE_S * 1000),
        rows=tty.rows if tty else 0,
        columns=tty.columns if tty else 0,
        flags=ExecFlag.SESSION_ENV | (ExecFlag.TTY if tty else ExecFlag.NONE),
        has_input=request.has_input or tty is not None,  # what a terminal has before its reader may be thrown away
    )
