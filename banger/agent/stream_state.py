"""One stream of a session as a host keeps it, whatever carries it: what the agent may say, and the credit. Pure."""

from __future__ import annotations

from banger.agent.messages import Result, read_u32
from banger.agent.wire import INPUT_WINDOW, MAX_INPUT_WINDOW, Flag, Frame, Kind, WireError


class StreamState:
    """Changed by the agent's frames and by what the host sends and takes.

    Attributes:
        number: in the session.
        window: the most output that may wait for its reader, in bytes.
        was_started: the agent said that what was asked for runs.
        was_stopped: nobody in the guest reads input any more.
        output_ended: no output comes any more, though a result may.
        input_credit: so many bytes of input may be sent now.
        result: how it ended.
    """

    __slots__ = (
        "_granted_bytes", "_output_credit", "_sent_bytes", "_taken_bytes", "input_credit", "number", "output_ended",
        "result", "was_started", "was_stopped", "window",
    )  # fmt: skip

    def __init__(self, number: int, window: int) -> None:
        """``window`` is the credit for output that its OPEN gives."""
        self.number = number
        self.window = window
        self.was_started = False
        self.was_stopped = False
        self.output_ended = False
        self.input_credit = INPUT_WINDOW
        self.result: Result | None = None
        self._output_credit = window
        self._taken_bytes = 0
        self._sent_bytes = 0
        self._granted_bytes = INPUT_WINDOW

    def receive(self, frame: Frame) -> None:
        """Take note of a frame of the agent's. Raises :class:`WireError` for one that must not come now."""
        match frame.kind:
            case Kind.DATA:
                self._receive_data(len(frame.payload), ends=Flag.END in frame.flags)
            case Kind.CREDIT:
                self._receive_credit(read_u32(frame.payload))
            case Kind.STARTED:
                if self.was_started:
                    raise WireError("a request is started twice")
                self.was_started = True
            case Kind.STOP:
                if self.was_stopped:
                    raise WireError("input is stopped twice")
                self.was_stopped = True
            case Kind.RESULT:
                self.result = Result.decode(frame.payload)
            case _:
                raise WireError(f"a frame of kind {frame.kind} on stream {frame.stream}")

    def send(self, size: int) -> None:
        """So much input is sent; there is credit for it."""
        self.input_credit -= size
        self._sent_bytes += size

    def take(self, size: int) -> int:
        """So much output has found its reader: the credit to give for it now, 0 if it is not worth a frame yet."""
        self._taken_bytes += size
        if self._taken_bytes * 4 < self.window or self.result is not None:
            return 0
        due, self._taken_bytes = self._taken_bytes, 0
        self._output_credit += due
        return due

    def widen(self, size: int) -> None:
        """The agent is given so much more credit for output, for good."""
        self.window += size
        self._output_credit += size

    def _receive_data(self, size: int, *, ends: bool) -> None:
        if self.output_ended:
            raise WireError("data after the end")
        if size > self._output_credit:
            raise WireError("more data than there is credit for")
        if not size and not ends:
            raise WireError("data without a byte")
        self._output_credit -= size
        self.output_ended = ends

    def _receive_credit(self, size: int) -> None:
        self._granted_bytes += size
        if not size or self._granted_bytes > self._sent_bytes + MAX_INPUT_WINDOW:
            raise WireError("credit that makes no sense")
        self.input_credit += size
