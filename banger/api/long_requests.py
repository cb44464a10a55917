"""Long requests: ``202`` with the operation, or with ``?wait=true`` its events and its result as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from banger.actors.messages import Command
from banger.api.context import context_of
from banger.api.ndjson import MEDIA_TYPE, line
from banger.core import codec
from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.progress import EventKind, OperationEvent
from banger.core.units import parse_duration
from banger.core.waiter import Waiter
from banger.sessions.news import News, hand_over

_TRUE, _FALSE = ("1", "true", "yes"), ("", "0", "false", "no")


def operation_view(operation: Operation) -> dict[str, Any]:
    """An operation as JSON."""
    return {
        "id": operation.id,
        "kind": operation.kind,
        "subject": operation.subject,
        "state": operation.state.value,
        "created_at": codec.to_plain(operation.created_at),
        "finished_at": codec.to_plain(operation.finished_at),
        "elapsed_s": operation.elapsed_s,
        "steps": codec.to_plain(operation.steps),
        "error": operation.error.to_dict() if operation.error else None,
    }


def is_set(request: Request, name: str) -> bool:
    """True for ``?name=true`` (or ``1``, ``yes``), False for the contrary; what is neither is a ``usage`` error."""
    value = request.query_params.get(name, "").lower()
    if value not in (*_TRUE, *_FALSE):
        message = f'"{value[:40]}" is not a valid value for "{name}"'
        raise BangerError(ErrorKind.USAGE, message, subject=name, hint="use true or false")
    return value in _TRUE


def deadline_of(request: Request) -> Deadline:
    """The caller's ``?timeout_s=``, or none."""
    text = request.query_params.get("timeout_s")
    return Deadline.after(parse_duration(text) if text else None)


async def perform(
    request: Request,
    command: Command,
    present: Callable[[Any], Any] = codec.to_plain,
    deadline: Deadline | None = None,
) -> Response:
    """Submit ``command`` and answer as the caller asked; ``present`` turns its result into JSON."""
    is_streamed = is_set(request, "wait")  # before anything is begun: it may be refused
    waiter = context_of(request).supervisor.submit(command, deadline or deadline_of(request))
    if is_streamed:
        return StreamingResponse(_lines(waiter, present), media_type=MEDIA_TYPE)
    news = News(waiter)
    await news.next()  # the first event, or the end, comes with the operation attached
    operation = waiter.operation
    if operation is None:
        waiter.outcome()
    assert operation is not None
    return JSONResponse({"operation": operation_view(operation)}, status_code=202)


async def follow(operation: Operation) -> AsyncIterator[bytes]:
    """The stream of an operation that somebody else began: watching neither keeps it alive nor cancels it."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[OperationEvent] = asyncio.Queue()
    unsubscribe = operation.subscribe(lambda event: hand_over(loop, queue, event))
    try:
        event = None
        while event is None or event.kind is not EventKind.FINISHED:  # which comes to whoever asks later, too
            event = await queue.get()
            yield line({"event": codec.to_plain(event)})
        error = operation.error
        yield line({"error": error.to_dict()} if error else {"result": codec.to_plain(operation.result)})
    finally:
        unsubscribe()


async def _lines(waiter: Waiter, present: Callable[[Any], Any]) -> AsyncIterator[bytes]:
    """Events, then the result or the error. Closing the stream early is the caller hanging up."""
    news = News(waiter)
    try:
        async with asyncio.timeout(waiter.deadline.remaining_s):
            while (event := await news.next()) is not None:
                yield line({"event": codec.to_plain(event)})
        yield line({"result": present(waiter.outcome())})
    except TimeoutError:
        yield line({"error": timed_out(waiter).to_dict()})
    except BangerError as error:
        yield line({"error": error.to_dict()})
    finally:
        waiter.leave()


def timed_out(waiter: Waiter) -> BangerError:
    """The error of a waiter whose deadline has passed."""
    try:
        waiter.wait()
    except BangerError as error:
        return error
    raise AssertionError("the deadline had passed")
