"""A host's half of a session with an agent, without the connection that carries it. Pure.

It greets, finds the answer, and cuts what comes after it into frames; what a guest may make it hold is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from banger.agent.wire import NO_NONCE, NONCE_BYTES, Frame, Hello, HostDecoder, Kind, Welcome, WireError

#: What may come before the answer to a greeting: the rest of a former session, which the VMM and the guest hold.
_MOST_GARBAGE = 8 << 20


class Exchange:
    """One session, from the first greeting on.

    Attributes:
        welcome: the answer to the greeting, once there is one.
        tag: of the session's frames; 0 before.
    """

    def __init__(self, window: int) -> None:
        """``window`` is the credit for the data of all streams together, in bytes."""
        self.welcome: Welcome | None = None
        self.tag = 0
        self._window = window
        self._credit = window
        self._garbage = 0
        self._decoder = HostDecoder(NO_NONCE)

    def greet(self) -> bytes:
        """A greeting. Of several, only the last one's answer counts."""
        nonce = os.urandom(NONCE_BYTES)
        self._decoder = HostDecoder(nonce)
        return Hello(nonce, self._window).encode()

    def receive(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now.

        Raises:
            WireError: for what is none, or beyond the credit, or if the agent has no session with us: feed it nothing
                after that.
        """
        if self.welcome is None:
            self._garbage += len(data)
            if self._garbage > _MOST_GARBAGE:
                raise WireError("no answer among many bytes")
        for frame in self._decoder.feed(data):
            self._note_welcome()
            if frame.kind is Kind.DATA:
                self._count(len(frame.payload))
            yield frame
        self._note_welcome()

    def describe(self, error: WireError) -> str:
        """Why the session is over, for an operator."""
        return str(error) if self._decoder.lost else f"its agent breaks the protocol: {error}"

    def credit_due(self) -> Frame | None:
        """What gives the session's credit back, whether or not somebody reads the data; None if that is not due."""
        if self._credit > self._window * 3 // 4:
            return None
        given, self._credit = self._window - self._credit, self._window
        return Frame(0, Kind.CREDIT, payload=given.to_bytes(4, "little"))

    def _note_welcome(self) -> None:
        welcome = self._decoder.welcome
        if self._decoder.lost is not None:
            raise WireError("its agent has begun anew")
        if welcome is None or self.welcome is not None:
            return
        if not welcome.tag:
            raise WireError(f"it speaks protocols {welcome.lowest} to {welcome.highest}")
        if not welcome.most_streams:
            raise WireError("it serves no requests")
        self.welcome, self.tag = welcome, welcome.tag

    def _count(self, size: int) -> None:
        self._credit -= size
        if self._credit < 0:
            raise WireError("more data than there is credit for in the session")
