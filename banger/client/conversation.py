"""Running a command in a guest to its end, for callers that just want its output."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from banger.client.channel import ClientFrameChannel, exit_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it printed. ``code`` is 128 + n after signal n."""

    code: int
    stdout: bytes
    stderr: bytes


def converse(
    channel: ClientFrameChannel,
    stdin: bytes | Iterable[bytes] = b"",
    on_event: Callable[[Mapping[str, Any]], None] | None = None,
    timeout_s: float | None = None,
) -> Ended:
    """Feed a command, collect what it says, and close the channel.

    Args:
        channel: just opened.
        stdin: all of its standard input, whole or in pieces.
        on_event: gets the events that come before the command runs.
        timeout_s: hang up after so long, which ends the command.

    Raises:
        BangerError: what kept the command from running; ``timeout``; ``unknown_outcome``.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    output = {FrameType.STDOUT: bytearray(), FrameType.STDERR: bytearray()}
    try:
        for piece in (stdin,) if isinstance(stdin, bytes | bytearray | memoryview) else stdin:
            if not channel.send_stdin(piece, None if end is None else end - time.monotonic()):
                break  # it has ended and reads no more, which is its right; or it is out of time
        channel.put(FrameType.STDIN_EOF)
        while (frame := channel.receive(None if end is None else end - time.monotonic())) is not None:
            kind, payload = frame
            if kind in output:
                output[kind] += payload
            elif kind is FrameType.EVENT and on_event is not None:
                on_event(json.loads(payload))
            elif kind is FrameType.EXIT:
                code = int(exit_of(payload)["code"])
                return Ended(code, bytes(output[FrameType.STDOUT]), bytes(output[FrameType.STDERR]))
        if not channel.ended:
            raise BangerError(ErrorKind.TIMEOUT, f"the command did not end within {timeout_s:g} s")
    finally:
        channel.close()
    raise BangerError(ErrorKind.UNKNOWN_OUTCOME, "the daemon ended the session without saying how the command ended")
