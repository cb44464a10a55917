"""The frame streams of ``run``, ``exec`` and ``cp``: frames and bodies, to and from the services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from loguru import logger
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from banger.api.bodies import decode
from banger.api.context import ApiContext, context_of
from banger.api.frame_caller import FrameCaller
from banger.api.frame_channel import ServerFrameChannel
from banger.api.peer import peer_uid
from banger.api.vms import create_command, find_vm
from banger.core.errors import BangerError, ErrorKind, internal_error
from banger.core.exec import ExecRequest, ExitStatus, Terminal
from banger.core.wire.exec import CopyConfig, ExecConfig, RunConfig, SshConfig
from banger.core.wire.vm_spec import VmSpec
from banger.core.wire.vms import CreateVmBody
from banger.sessions.run import RunRequest

Work = Callable[[ApiContext, ServerFrameChannel, Request], Awaitable[ExitStatus]]


class FrameEndpoint:
    """An ASGI endpoint that does its work on a frame stream and ends it with what the work returns."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run until the work is done or the caller hangs up, whichever is first."""
        request = Request(scope)
        channel = ServerFrameChannel(receive, send)
        hearing = asyncio.create_task(channel.pump())  # to the end: until the caller hangs up
        work = asyncio.create_task(self._answer(request, channel))
        try:
            await asyncio.wait({work, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, hearing):
                task.cancel()
            await asyncio.gather(work, hearing, return_exceptions=True)
        if channel.fault is not None:
            with suppress(OSError):
                await channel.finish({"error": channel.fault.to_dict()})

    async def _answer(self, request: Request, channel: ServerFrameChannel) -> None:
        try:
            outcome: dict[str, Any] = asdict(await self._work(context_of(request), channel, request))
        except BangerError as error:
            outcome = {"error": error.to_dict()}
        except Exception as error:  # noqa: BLE001  # the boundary: a bug must not end the stream without a word
            logger.opt(exception=error).error("a session failed")
            outcome = {"error": internal_error(error, "serving a session").to_dict()}
        with suppress(OSError):
            await channel.finish(outcome)


async def run(context: ApiContext, channel: ServerFrameChannel, request: Request) -> ExitStatus:
    """Make and start a VM, run a command in it; an ephemeral one is deleted however the session ends."""
    body = decode(await channel.config(), RunConfig)
    if body.exec.checkpoint:
        raise BangerError(ErrorKind.USAGE, "a new VM has nothing to go back to", hint="leave the checkpoint out")
    spec = _with_boot_command(body) if body.detach else body.spec
    create = create_command(context, CreateVmBody(spec, body.name, start=True), peer_uid(request))
    run = RunRequest(create, exec_request(body.exec), body.exec.timeout_s, body.detach)
    return await context.vms.sessions.run.run(run, FrameCaller(channel))


def _with_boot_command(body: RunConfig) -> VmSpec:
    """The spec of a detached run: nobody waits for its command, so it is the VM's own, and runs with every boot."""
    spec, execution = body.spec, body.exec
    return replace(
        spec,
        command=execution.argv,
        env=tuple(dict.fromkeys((*spec.env, *execution.env))),
        user=execution.user or spec.user,
        workdir=execution.workdir or spec.workdir,
    )


async def exec_(context: ApiContext, channel: ServerFrameChannel, request: Request) -> ExitStatus:
    """Run a command in a running VM."""
    vm = find_vm(request)
    body, caller = decode(await channel.config(), ExecConfig), FrameCaller(channel)
    if body.checkpoint:
        await context.vms.sessions.checkpoints.take(vm, peer_uid(request), caller)
    return await context.vms.sessions.exec.run(vm, exec_request(body), caller, body.timeout_s)


def exec_request(body: ExecConfig) -> ExecRequest:
    """The caller's request in the form of the services."""
    tty = Terminal(body.tty.rows, body.tty.columns, body.tty.term) if body.tty else None
    return ExecRequest(argv=body.argv, env=body.env, user=body.user, workdir=body.workdir, tty=tty)


async def put_files(context: ApiContext, channel: ServerFrameChannel, request: Request) -> ExitStatus:
    """Unpack the tar stream that comes as STDIN into ``?directory=``."""
    vm = find_vm(request)
    decode(await channel.config(), CopyConfig)
    return await context.vms.sessions.files.put(vm, request.query_params.get("directory", ""), FrameCaller(channel))


async def get_files(context: ApiContext, channel: ServerFrameChannel, request: Request) -> ExitStatus:
    """Send ``?path=`` as a tar stream with one top-level entry."""
    vm = find_vm(request)
    decode(await channel.config(), CopyConfig)
    return await context.vms.sessions.files.get(vm, request.query_params.get("path", ""), FrameCaller(channel))


async def ssh(context: ApiContext, channel: ServerFrameChannel, request: Request) -> ExitStatus:
    """Carry the bytes of an ssh client to banger's own server in the guest, which is started if it does not run."""
    vm = find_vm(request)
    decode(await channel.config(), SshConfig)
    return await context.vms.sessions.ssh.connect(vm, FrameCaller(channel))


async def stat(request: Request) -> Response:
    """What ``?path=`` is in the guest."""
    path = request.query_params.get("path", "")
    found = await context_of(request).vms.sessions.files.stat(find_vm(request), path)
    return JSONResponse({"path": path, **asdict(found)})
