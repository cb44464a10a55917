"""The frame streams: ``run``, ``exec`` and the two directions of ``cp``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from loguru import logger
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from banger.actors.messages import CreateVm, DeleteVm
from banger.api.bodies import CreateVmBody, ExecBody, RunBody, decode
from banger.api.context import ApiContext, context_of
from banger.api.frame_channel import ServerFrameChannel
from banger.api.long_requests import News
from banger.api.peer import peer_uid
from banger.api.vms import create_command
from banger.core import codec
from banger.core.errors import BangerError, ErrorKind, internal_error
from banger.core.frames import FrameType
from banger.core.image_command import command_of_run
from banger.core.models import ImageConfig, Vm, VmSpec
from banger.core.states import check_running
from banger.core.waiter import Waiter
from banger.guest import files
from banger.guest.command import ExecRequest, Terminal
from banger.guest.session_output import Stream
from banger.guest.sessions import GuestSession

Work = Callable[[ApiContext, ServerFrameChannel, Request], Awaitable[dict[str, Any]]]


class FrameEndpoint:
    """An ASGI endpoint that does its work on a frame stream and ends it with what the work returns."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run until the work is done or the caller hangs up, whichever is first."""
        request = Request(scope)
        channel = ServerFrameChannel(receive, send)
        pump = asyncio.create_task(channel.pump())
        work = asyncio.create_task(self._answer(request, channel))
        hang_up = asyncio.create_task(channel.hung_up.wait())
        try:
            await asyncio.wait({work, hang_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, hang_up, pump):
                task.cancel()
            await asyncio.gather(work, hang_up, pump, return_exceptions=True)
        if channel.fault is not None:
            with suppress(OSError):
                await channel.finish({"error": channel.fault.to_dict()})

    async def _answer(self, request: Request, channel: ServerFrameChannel) -> None:
        try:
            outcome = await self._work(context_of(request), channel, request)
        except BangerError as error:
            outcome = {"error": error.to_dict()}
        except Exception as error:  # noqa: BLE001  # the boundary: a bug must not end the stream without a word
            logger.opt(exception=error).error("a session failed")
            outcome = {"error": internal_error(error, "serving a session").to_dict()}
        with suppress(OSError):
            await channel.finish(outcome)


async def run(context: ApiContext, channel: ServerFrameChannel, request: Request) -> dict[str, Any]:
    """Make and start a VM, run a command in it; an ephemeral one is deleted however the session ends."""
    body = decode(await channel.config(), RunBody)
    spec = _with_boot_command(body) if body.detach else body.spec
    command = create_command(context, CreateVmBody(spec, body.name, start=True), peer_uid(request))
    if not body.spec.ephemeral or body.detach:
        return await _run(context, channel, body, command)
    with context.attendance.held(command.vm_id, command.vm_name):
        return await _run(context, channel, body, replace(command, attended=True))


async def _run(context: ApiContext, channel: ServerFrameChannel, body: RunBody, command: CreateVm) -> dict[str, Any]:
    waiter = context.supervisor.submit(command)
    lost: BangerError | None = None
    try:
        vm = await _follow(waiter, channel)
        if body.detach:
            await _say_started(channel, vm)
            return {"code": 0, "signal": ""}
        execution = replace(body.exec, argv=_argv_of_run(context, vm, body.exec))
        try:
            outcome = await _exec(context, channel, vm, execution)
        except BangerError as error:
            if error.kind not in (ErrorKind.UNAVAILABLE, ErrorKind.UNKNOWN_OUTCOME):
                raise
            lost = error
            outcome = {}
    finally:
        waiter.leave()
        if command.attended and context.store.vms.get(command.vm_id) is not None:
            await _delete(context, command.vm_id, command.vm_name, lost=lost is not None)
    if lost is not None:
        raise await asyncio.to_thread(_told, context, command.vm_id, lost)
    return outcome


def _with_boot_command(body: RunBody) -> VmSpec:
    """The spec of a detached run: nobody waits for its command, so it is the VM's own, and runs with every boot."""
    spec, execution = body.spec, body.exec
    return replace(
        spec,
        command=execution.argv,
        env=tuple(dict.fromkeys((*spec.env, *execution.env))),
        user=execution.user or spec.user,
        workdir=execution.workdir or spec.workdir,
    )


def _told(context: ApiContext, vm_id: str, lost: BangerError) -> BangerError:
    """The error of a command whose guest was lost, with how its VM ended if that is known by now."""
    kept = next((one for one in context.evidence.all() if one.vm.id == vm_id), None)
    if kept is None:
        return lost
    name = kept.vm.name
    message, hint = f'VM "{name}" ended while the command ran', f"banger vm why {name}"
    return BangerError(lost.kind, message, subject=name, cause=kept.words, hint=hint)


async def exec_(context: ApiContext, channel: ServerFrameChannel, request: Request) -> dict[str, Any]:
    """Run a command in a running VM."""
    vm = context.store.vms.find(request.path_params["query"])
    body = decode(await channel.config(), ExecBody)
    check_running(vm)
    return await _exec(context, channel, vm, body)


async def put_files(context: ApiContext, channel: ServerFrameChannel, request: Request) -> dict[str, Any]:
    """Unpack the tar stream that comes as STDIN into ``?directory=``."""
    return await _tool(context, channel, request, files.receive(request.query_params.get("directory", "")))


async def get_files(context: ApiContext, channel: ServerFrameChannel, request: Request) -> dict[str, Any]:
    """Send ``?path=`` as a tar stream with one top-level entry."""
    return await _tool(context, channel, request, files.send(request.query_params.get("path", "")))


async def stat(request: Request) -> Response:
    """What ``?path=`` is in the guest."""
    context = context_of(request)
    vm = context.store.vms.find(request.path_params["query"])
    check_running(vm)
    path = request.query_params.get("path", "")
    session = await context.channels.open_tool(context.access(vm), files.look(path))
    answer = await session.answer()
    return JSONResponse({"path": path, **asdict(files.seen(answer.stdout))})


async def _tool(context: ApiContext, channel: ServerFrameChannel, request: Request, args: list[str]) -> dict[str, Any]:
    vm = context.store.vms.find(request.path_params["query"])
    await channel.config()
    check_running(vm)
    session = await context.channels.open_tool(context.access(vm), args)
    return await _converse(channel, session)


async def _follow(waiter: Waiter, channel: ServerFrameChannel) -> Vm:
    """Send the operation's events as frames; the result is the VM."""
    news = News(waiter)
    while (event := await news.next()) is not None:
        await channel.send_json(FrameType.EVENT, codec.to_plain(event))
    vm = waiter.outcome()
    assert isinstance(vm, Vm)
    return vm


async def _exec(context: ApiContext, channel: ServerFrameChannel, vm: Vm, body: ExecBody) -> dict[str, Any]:
    session = await context.channels.open_session(context.access(vm), exec_request(context, vm, body))
    try:
        await _say_started(channel, vm)
        async with asyncio.timeout(body.timeout_s):
            return await _converse(channel, session)
    except TimeoutError:
        raise BangerError(
            ErrorKind.TIMEOUT, f"the command did not end within {body.timeout_s:g} s", subject=vm.name
        ) from None
    finally:
        await session.close()


async def _say_started(channel: ServerFrameChannel, vm: Vm) -> None:
    """From here on a failure is the command's, not banger's."""
    await channel.send_json(FrameType.STARTED, {"vm_id": vm.id, "vm_name": vm.name})


def _argv_of_run(context: ApiContext, vm: Vm, body: ExecBody) -> tuple[str, ...]:
    image = context.store.images.get(vm.image_id)
    return command_of_run(image.config if image else ImageConfig(), vm.spec.entrypoint, body.argv)


def exec_request(context: ApiContext, vm: Vm, body: ExecBody) -> ExecRequest:
    """Fill in what the caller left open from the VM's spec and the image's configuration; no ``argv`` is a shell."""
    image = context.store.images.get(vm.image_id)
    user, workdir = body.user or vm.spec.user, body.workdir or vm.spec.workdir
    if image is not None:
        user = user or image.config.user
        workdir = workdir or image.config.workdir
    tty = Terminal(body.tty.rows, body.tty.columns, body.tty.term) if body.tty else None
    return ExecRequest(argv=body.argv, env=body.env, user=user, workdir=workdir, tty=tty)


async def _converse(channel: ServerFrameChannel, session: GuestSession) -> dict[str, Any]:
    """Carry input one way and output the other until the command has ended and its output is sent."""
    tasks = [asyncio.create_task(work(channel, session)) for work in (_feed, _control)]
    try:
        async for stream, chunk in session.output():
            await channel.send(FrameType.STDERR if stream is Stream.STDERR else FrameType.STDOUT, chunk)
        status = await session.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.close()
    return {"code": status.code, "signal": status.signal}


async def _feed(channel: ServerFrameChannel, session: GuestSession) -> None:
    """Pass standard input on as fast as the command takes it; what it will never read is thrown away."""
    wanted = True
    while (data := await channel.next_input()) is not None:
        wanted = wanted and await session.write_stdin(data)
        await channel.taken(len(data))
    session.write_eof()


async def _control(channel: ServerFrameChannel, session: GuestSession) -> None:
    """Pass signals and sizes on. One that makes no sense is told in the log, and the next is heard all the same."""
    while (frame := await channel.next_control()) is not None:
        kind, payload = frame
        try:
            match kind:
                case FrameType.SIGNAL:
                    session.send_signal(payload.decode("ascii", "replace"))
                case FrameType.RESIZE:
                    size = json.loads(payload)
                    session.resize(int(size["rows"]), int(size["columns"]))
                case _:
                    logger.debug("a {} frame has no meaning here", kind.name)
        except (BangerError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            logger.warning("a {} frame was ignored: {}", kind.name, error)


async def _delete(context: ApiContext, vm_id: str, name: str, *, lost: bool) -> None:
    """Delete an ephemeral VM and wait until it is gone."""
    waiter = context.supervisor.submit(DeleteVm(vm_id, name, force=True, lost=lost))
    news = News(waiter)
    while await news.next() is not None:
        pass
    try:
        waiter.outcome()
    except BangerError as error:
        if error.kind is not ErrorKind.NOT_FOUND:  # the creation was undone already
            logger.warning("ephemeral VM {} was not deleted: {}", name, error)
