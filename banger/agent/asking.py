"""Asking a guest's agent for something that has a short answer, or a stream of bytes, and what its refusals mean."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from banger.agent.link import AgentLink
from banger.agent.messages import Request, Result, Status
from banger.agent.processes import describe
from banger.agent.stream import AgentStream
from banger.core.errors import BangerError, ErrorKind

#: How long a short answer may take, in an emulated guest on a busy host.
ANSWER_TIMEOUT_S = 30.0

_STATUSES = {
    Status.BAD_REQUEST: ErrorKind.INVALID,
    Status.BUSY: ErrorKind.EXHAUSTED,
    Status.NO_USER: ErrorKind.NOT_FOUND,
    Status.NO_GROUP: ErrorKind.NOT_FOUND,
    Status.NO_DIRECTORY: ErrorKind.NOT_FOUND,
    Status.NOT_FOUND: ErrorKind.NOT_FOUND,
    Status.CANCELLED: ErrorKind.CANCELLED,
}
#: By Linux's numbers, which are those of this host too.
_ERRNOS = {
    ErrorKind.NOT_FOUND: (errno.ENOENT, errno.ENOTDIR),
    ErrorKind.ALREADY_EXISTS: (errno.EEXIST,),
    ErrorKind.CONFLICT: (errno.ENOTEMPTY, errno.EBUSY, errno.EISDIR, errno.ETXTBSY, errno.EXDEV),
    ErrorKind.DENIED: (errno.EACCES, errno.EPERM, errno.EROFS),
    ErrorKind.EXHAUSTED: (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EFBIG),
    ErrorKind.INVALID: (errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP),
}
_KINDS = {number: kind for kind, numbers in _ERRNOS.items() for number in numbers}


@dataclass(frozen=True, slots=True)
class Asker:
    """One guest's agent, asked for what is no command. All raise what :meth:`AgentLink.open` does, and ``timeout``."""

    vm_id: str
    link: AgentLink

    async def ask(self, request: Request, doing: str = "") -> Result:
        """Send a request whose answer is all there is; a refusal is raised as :meth:`refusal` says."""
        return await self.answer(await self.link.open(request), doing)

    async def answer(self, stream: AgentStream, doing: str = "", timeout_s: float = ANSWER_TIMEOUT_S) -> Result:
        """The result of a request that has been told all."""
        try:
            async with asyncio.timeout(timeout_s):
                result = await asyncio.shield(stream.result)
        except TimeoutError:
            message = f"the guest did not answer within {timeout_s:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=self.vm_id) from None
        finally:
            if not stream.result.done():
                stream.cancel()
        if result.status:
            raise self.refusal(result, doing)
        return result

    async def bytes_of(self, request: Request, doing: str = "") -> AsyncGenerator[bytes]:
        """The output of a request, as it is read. Closed before its end, the request is cancelled."""
        stream = await self.link.open(request)
        try:
            while (chunk := await stream.read()) is not None:
                yield chunk[1]
            if (result := await asyncio.shield(stream.result)).status:
                raise self.refusal(result, doing)
        finally:
            stream.cancel()

    async def collect(self, request: Request, most_bytes: int, doing: str = "") -> bytes:
        """All of the output of a request, of which there is not much. Raises ``unavailable`` if there is more."""
        data = b""
        output = self.bytes_of(request, doing)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                async for piece in output:
                    data += piece
                    if len(data) > most_bytes:
                        cause = f"more than {most_bytes} bytes"
                        raise BangerError(
                            ErrorKind.UNAVAILABLE, "the guest says too much", subject=self.vm_id, cause=cause
                        )
        except TimeoutError:
            message = f"the guest did not answer within {ANSWER_TIMEOUT_S:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, subject=self.vm_id) from None
        finally:
            await output.aclose()
        return data

    def refusal(self, result: Result, doing: str = "") -> BangerError:
        """The error of a request that the guest does not meet; ``doing`` is what it cannot do, as a verb."""
        kind = _STATUSES.get(Status(result.status)) if result.status in set(Status) else None
        if kind is None and result.status == Status.FAILED:
            kind = _KINDS.get(result.errno)
        message = f"the guest cannot {doing}" if doing else "the guest refuses"
        hint = "" if kind else f"banger vm why {self.vm_id}"
        return BangerError(
            kind or ErrorKind.UNAVAILABLE, message, subject=self.vm_id, cause=describe(result), hint=hint
        )
