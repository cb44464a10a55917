"""Greeting and frames of the guest agent's protocol, as bytes. Pure; docs/agent.md is the format's description.

Everything that comes from a guest is hostile until it is decoded here: lengths, kinds and tags are checked, and nothing
longer than a frame is ever held.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

PROTOCOL = 1
MAGIC = b"\xffBANGER-AGENT\r\n\xff"
#: Zeros before a HELLO: as many as a frame can lack.
PADDING_BYTES = 32768
NONCE_BYTES = 16
NO_NONCE = bytes(NONCE_BYTES)

MAX_FRAME = 32768
_HEADER, _TRAILER = struct.Struct("<IIIBBH"), struct.Struct("<I")
MAX_PAYLOAD = MAX_FRAME - _HEADER.size - _TRAILER.size
#: One request, over all the OPEN frames that it takes.
MAX_REQUEST = 1 << 20
#: Credit for a stream's input that a host has before the agent gives more.
INPUT_WINDOW = 65536
MAX_INPUT_WINDOW = 1 << 20
MIN_SESSION_WINDOW, MAX_SESSION_WINDOW = 32768, 1 << 24
MAX_PING = 64
#: Requests that are served at once in a session; on a channel that serves nothing but dial.
MAX_STREAMS, MAX_DIALS = 256, 2048

_HELLO, _WELCOME = struct.Struct("<16sHHI16s8x"), struct.Struct("<16s16sHHHHII16s16sII8x")
HELLO_BYTES, WELCOME_BYTES = _HELLO.size, _WELCOME.size
_U32 = struct.Struct("<I")


class WireError(ValueError):
    """What came is not the protocol; the message says why, in words for an operator."""


class Kind(IntEnum):
    """Frame kinds."""

    OPEN = 1
    DATA = 2
    CREDIT = 3
    CANCEL = 4
    SIGNAL = 5
    RESIZE = 6
    PING = 7
    PONG = 8
    STARTED = 9
    STOP = 10
    RESULT = 11


class Flag(IntFlag):
    """Frame flags; ``MORE`` belongs to OPEN, the others to DATA."""

    NONE = 0
    MORE = 1
    END = 1
    ERR = 2


class Reason(IntEnum):
    """Why a WELCOME was sent."""

    GREETED = 0
    STARTED = 1
    BAD_FRAME = 2
    NO_PROTOCOL = 3
    BAD_HELLO = 4


#: What each side may send, with the flags and the shortest and longest payload that the kind allows.
_FROM_AGENT = {
    Kind.DATA: (Flag.END | Flag.ERR, 0, MAX_PAYLOAD),
    Kind.CREDIT: (Flag.NONE, 4, 4),
    Kind.PONG: (Flag.NONE, 0, MAX_PING),
    Kind.STARTED: (Flag.NONE, 0, 4),
    Kind.STOP: (Flag.NONE, 0, 0),
    Kind.RESULT: (Flag.NONE, 12, 16384),
}
_FROM_HOST = {
    Kind.OPEN: (Flag.MORE, 0, MAX_PAYLOAD),
    Kind.DATA: (Flag.END, 0, MAX_PAYLOAD),
    Kind.CREDIT: (Flag.NONE, 4, 4),
    Kind.CANCEL: (Flag.NONE, 0, 0),
    Kind.SIGNAL: (Flag.NONE, 2, 2),
    Kind.RESIZE: (Flag.NONE, 4, 4),
    Kind.PING: (Flag.NONE, 0, MAX_PING),
}
_OF_SESSION = frozenset({Kind.PING, Kind.PONG})


class Frame(NamedTuple):
    """One frame; ``stream`` is 0 for the session itself."""

    stream: int
    kind: Kind
    flags: Flag = Flag.NONE
    payload: bytes = b""

    def encode(self, tag: int) -> bytes:
        """As it travels in the session with that tag."""
        header = _HEADER.pack(len(self.payload), self.stream, tag, self.kind, self.flags, 0)
        return b"".join((header, self.payload, _TRAILER.pack(tag)))


class Hello(NamedTuple):
    """A host's greeting."""

    nonce: bytes
    session_window: int
    lowest: int = PROTOCOL
    highest: int = PROTOCOL

    def encode(self, *, padded: bool = True) -> bytes:
        """With the zeros before it that a stream of unknown state needs."""
        record = _HELLO.pack(MAGIC, self.lowest, self.highest, self.session_window, self.nonce)
        return bytes(PADDING_BYTES) + record if padded else record

    @classmethod
    def decode(cls, record: bytes) -> Hello:
        """Of ``HELLO_BYTES`` that begin with the magic. Raises :class:`WireError`."""
        _, lowest, highest, window, nonce = _HELLO.unpack(record)
        if nonce == NO_NONCE or not MIN_SESSION_WINDOW <= window <= MAX_SESSION_WINDOW:
            raise WireError("a greeting without a nonce, or with an odd window")
        return cls(nonce, window, lowest, highest)


class Feature(IntFlag):
    """What an agent can besides its protocol; later ones have more."""

    CGROUPS = 1
    NO_INPUT = 2


class Welcome(NamedTuple):
    """An agent's answer, or, if ``nonce`` is :data:`NO_NONCE`, its announcement that it has no session.

    Attributes:
        protocol: of the session; 0 without one.
        tag: of the session's frames; 0 without one.
        ended_streams: of the session before on this channel, ended by this greeting.
        boot: what identifies the running agent; another one means that the machine was rebooted.
    """

    nonce: bytes
    protocol: int
    lowest: int
    highest: int
    reason: int
    tag: int
    ended_streams: int
    boot: bytes
    version: str
    most_streams: int
    features: int

    def encode(self) -> bytes:
        """As it travels."""
        return _WELCOME.pack(
            MAGIC,
            self.nonce,
            self.protocol,
            self.lowest,
            self.highest,
            self.reason,
            self.tag,
            self.ended_streams,
            self.boot,
            self.version.encode(),
            self.most_streams,
            self.features,
        )

    @classmethod
    def decode(cls, record: bytes) -> Welcome:
        """Of ``WELCOME_BYTES`` that begin with the magic. Raises :class:`WireError`."""
        _, nonce, *numbers, boot, version, streams, features = _WELCOME.unpack(record)
        protocol, lowest, highest, reason, tag, ended = numbers
        if bool(protocol) != bool(tag) or (tag and 0 in _U32.pack(tag)):
            raise WireError("a session without a tag, or a tag without a session")
        words = version.rstrip(b"\0").decode("ascii", "replace")
        if not words.isprintable():
            raise WireError("the agent's version is not text")
        return cls(nonce, protocol, lowest, highest, reason, tag, ended, boot, words, streams, features)


class FrameDecoder:
    """Cuts the frames of one session out of a byte stream; feed it chunks of any size.

    Args:
        tag: of the session.
        from_agent: which side's frames they are.
    """

    def __init__(self, tag: int, *, from_agent: bool = True) -> None:
        self._tag = tag
        self._allowed = _FROM_AGENT if from_agent else _FROM_HOST
        self.buffer = bytearray()  #: what came and is no whole frame yet

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield every frame that is complete now. Raises :class:`WireError` for what is none."""
        self.buffer += data
        while (frame := self.cut()) is not None:
            yield frame

    def cut(self) -> Frame | None:
        """Take the next frame from the buffer, if it is complete. Raises :class:`WireError` for what is none."""
        if len(self.buffer) < _HEADER.size:
            return None
        length, stream, tag, number, flags, zero = _HEADER.unpack_from(self.buffer)
        if tag != self._tag or zero:
            raise WireError("bytes that are no frame of this session")
        kind = self._check(length, stream, number, flags)
        end = _HEADER.size + length
        if len(self.buffer) < end + _TRAILER.size:
            return None
        if _TRAILER.unpack_from(self.buffer, end)[0] != tag:
            raise WireError("a frame is cut off")
        with memoryview(self.buffer) as view:
            payload = bytes(view[_HEADER.size : end])
        del self.buffer[: end + _TRAILER.size]
        return Frame(stream, kind, Flag(flags), payload)

    def _check(self, length: int, stream: int, number: int, flags: int) -> Kind:
        try:
            kind = Kind(number)
            allowed, least, most = self._allowed[kind]
        except (ValueError, KeyError):
            raise WireError(f"a frame of the unknown kind {number}") from None
        if flags & ~allowed or not least <= length <= most:
            raise WireError(f"a frame of kind {number} with {length} bytes and flags {flags:#x}")
        credits_session = kind is Kind.CREDIT and self._allowed is _FROM_HOST
        if (kind in _OF_SESSION) != (stream == 0) and not credits_session:
            raise WireError(f"a frame of kind {number} on stream {stream}")
        return kind


class HostDecoder:
    """What a host reads after it has sent a HELLO: first the WELCOME to it, whatever comes before, then frames.

    Attributes:
        welcome: the answer; ``None`` until it has come. Without a tag there is no session: nothing is decoded then.
        lost: the agent's announcement that it has no session any more; nothing is decoded after it.
    """

    def __init__(self, nonce: bytes) -> None:
        self._marker = MAGIC + nonce
        self._frames = FrameDecoder(0)
        self.welcome: Welcome | None = None
        self.lost: Welcome | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Raises :class:`WireError`; feed it nothing after that."""
        self._frames.buffer += data
        while self._in_session() and (frame := self._frames.cut()) is not None:
            yield frame

    def _in_session(self) -> bool:
        if self.welcome is None:
            self._hunt(self._frames.buffer)
        if self.welcome is None:
            return False
        buffer = self._frames.buffer
        if self.welcome.tag == 0 or self.lost is not None:
            buffer.clear()
            return False
        if not buffer.startswith(MAGIC):
            return True
        if len(buffer) >= WELCOME_BYTES:
            self.lost = Welcome.decode(bytes(buffer[:WELCOME_BYTES]))
        return False

    def _hunt(self, buffer: bytearray) -> None:
        start = buffer.find(self._marker)
        if start < 0:
            del buffer[: -len(self._marker)]
            return
        del buffer[:start]
        if len(buffer) >= WELCOME_BYTES:
            self.welcome = Welcome.decode(bytes(buffer[:WELCOME_BYTES]))
            self._frames = FrameDecoder(self.welcome.tag)
            self._frames.buffer += buffer[WELCOME_BYTES:]
