"""Requests and results of the guest agent's protocol, as the payloads of OPEN and RESULT. Pure; see docs/agent.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

from banger.agent.wire import MAX_PAYLOAD, MAX_REQUEST, Flag, Frame, Kind, WireError

#: What Linux takes as one argument or variable (``MAX_ARG_STRLEN``, execve(2)), without its zero byte.
MAX_STRING = 131071
#: So many bytes of a result's message are kept: an agent's own are a path and a few words, and there are many results.
_MOST_MESSAGE = 2048
#: ``length`` of :func:`read` that means "to the end".
TO_THE_END = (1 << 64) - 1

_REQUEST, _RESULT = struct.Struct("<HHI"), struct.Struct("<HHI")
_U32, _U64, _I64 = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<q")
_EXIT = struct.Struct("<BBBxQQQ")
_ENTRY = struct.Struct("<B3xIIII4xQQq")


class Op(IntEnum):
    """What an agent can be asked for."""

    EXEC = 1
    GET = 2
    PUT = 3
    STAT = 4
    LIST = 5
    MKDIR = 6
    REMOVE = 7
    RENAME = 8
    READ = 9
    WRITE = 10
    DIAL = 11
    FACTS = 12
    POWEROFF = 13
    CLOCK = 14
    ENTROPY = 15
    IDENTITY = 16
    FREEZE = 17
    RUNS = 18
    END = 19
    NETWORK = 20
    WHOAMI = 21


class Status(IntEnum):
    """How a request went."""

    OK = 0
    BAD_REQUEST = 1
    UNSUPPORTED = 2
    BUSY = 3
    NO_USER = 4
    NO_GROUP = 5
    NO_DIRECTORY = 6
    NOT_FOUND = 7
    NOT_EXECUTABLE = 8
    FAILED = 9
    CANCELLED = 10
    REFUSED = 11


class ExecFlag(IntFlag):
    """Of EXEC."""

    NONE = 0
    TTY = 1
    KEPT = 2
    SESSION_ENV = 4
    NO_INPUT = 8


class WriteFlag(IntFlag):
    """Of WRITE."""

    NONE = 0
    CREATE = 1
    TRUNCATE = 2
    EXCLUSIVE = 4
    APPEND = 8
    DURABLE = 16


class Family(IntEnum):
    """Of DIAL. ``MACHINE`` is whatever address of the guest's somebody listens at."""

    MACHINE = 0
    UNIX = 1
    TCP4 = 4
    TCP6 = 6


class PowerOff(IntEnum):
    """How to end the machine."""

    POWEROFF = 0
    REBOOT = 1
    POWEROFF_NOW = 2
    REBOOT_NOW = 3


class Target(IntEnum):
    """Whom a SIGNAL frame reaches."""

    PROCESS = 0
    GROUP = 1
    ALL = 2


class FileKind(IntEnum):
    """What an entry of a directory is."""

    NOTHING = 0
    FILE = 1
    DIRECTORY = 2
    LINK = 3
    CHARACTER_DEVICE = 4
    BLOCK_DEVICE = 5
    PIPE = 6
    SOCKET = 7


def string(value: str | bytes) -> bytes:
    """A string of the protocol. Raises ``ValueError`` for a zero byte where none can be, in text."""
    data = value if isinstance(value, bytes) else value.encode(errors="surrogateescape")
    if isinstance(value, str) and b"\0" in data:
        raise ValueError("text with a zero byte")
    return _U32.pack(len(data)) + data + b"\0"


def strings(values: Sequence[str]) -> bytes:
    """A count and that many strings."""
    return _U32.pack(len(values)) + b"".join(map(string, values))


class Request(NamedTuple):
    """The payload of OPEN, but for the window, which the session knows.

    ``has_input``: there may be some; if not, its end is sent with the request, which spares the guest an interruption.
    """

    op: Op
    fields: bytes = b""
    flags: int = 0
    has_input: bool = True

    def frames(self, stream: int, window: int) -> Iterator[Frame]:
        """Its frames, to be sent without others in between. Raises ``ValueError`` if it is too large."""
        payload = _REQUEST.pack(self.op, self.flags, window) + self.fields
        if len(payload) > MAX_REQUEST:
            raise ValueError(f"a request of {len(payload)} bytes; {MAX_REQUEST} is the most")
        for start in range(0, len(payload), MAX_PAYLOAD):
            more = Flag.MORE if start + MAX_PAYLOAD < len(payload) else Flag.NONE
            yield Frame(stream, Kind.OPEN, more, payload[start : start + MAX_PAYLOAD])
        if not self.has_input:
            yield Frame(stream, Kind.DATA, Flag.END)


class ExecSpec(NamedTuple):
    """A command; what the attributes mean is in docs/agent.md."""

    argv: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str = ""
    workdir: str = ""
    id: str = ""
    timeout_ms: int = 0
    grace_ms: int = 1000
    rows: int = 0
    columns: int = 0
    flags: ExecFlag = ExecFlag.SESSION_ENV
    has_input: bool = True

    def request(self) -> Request:
        """As a request."""
        numbers = struct.pack("<IIHH", self.timeout_ms, self.grace_ms, self.rows, self.columns)
        texts = string(self.user) + string(self.workdir) + string(self.id)
        fields = numbers + texts + strings(self.argv) + strings(self.env)
        return Request(Op.EXEC, fields, self.flags, self.has_input)


def get(path: str) -> Request:
    """The path as a tar stream."""
    return Request(Op.GET, string(path))


def put(directory: str) -> Request:
    """Unpack a tar stream there."""
    return Request(Op.PUT, string(directory))


def stat(path: str, user: str = "") -> Request:
    """What a path is; the result is for :func:`read_stat`."""
    return Request(Op.STAT, string(user) + string(path))


def list_directory(path: str, user: str = "") -> Request:
    """Its entries; the output is for :class:`EntryReader`."""
    return Request(Op.LIST, string(user) + string(path))


def mkdir(path: str, mode: int = 0o755, *, parents: bool = False, user: str = "") -> Request:
    """Make a directory."""
    return Request(Op.MKDIR, string(user) + string(path) + _U32.pack(mode), int(parents))


def remove(path: str, *, tree: bool = False, user: str = "") -> Request:
    """Remove a file, an empty directory, or a tree."""
    return Request(Op.REMOVE, string(user) + string(path), int(tree))


def rename(source: str, target: str, user: str = "") -> Request:
    """Give a file another name; what has that name already is replaced, as by the system call."""
    return Request(Op.RENAME, string(user) + string(source) + string(target))


def read(path: str, offset: int = 0, length: int = TO_THE_END, user: str = "") -> Request:
    """Bytes of a file; the result is for :func:`read_u64`."""
    return Request(Op.READ, string(user) + string(path) + _U64.pack(offset) + _U64.pack(length))


def write(
    path: str, offset: int = 0, mode: int = 0o644, flags: WriteFlag = WriteFlag.CREATE, user: str = ""
) -> Request:
    """Write the stream's input into a file; the result is for :func:`read_u64`."""
    return Request(Op.WRITE, string(user) + string(path) + _U64.pack(offset) + _U32.pack(mode), flags)


def dial(family: Family, address: str = "", port: int = 0, *, datagrams: bool = False) -> Request:
    """Connect to a socket in the guest; ``datagrams`` are carried as :mod:`banger.agent.datagrams` has them."""
    return Request(Op.DIAL, struct.pack("<BxH", family, port) + string(address), int(datagrams))


def poweroff(how: PowerOff = PowerOff.POWEROFF) -> Request:
    """End the machine."""
    return Request(Op.POWEROFF, bytes([how]))


def clock(unix_ns: int = 0, *, step: bool = False) -> Request:
    """Ask for the guest's clock, and set it; the result is for :func:`read_i64`."""
    return Request(Op.CLOCK, _I64.pack(unix_ns), int(step))


def entropy(seed: bytes) -> Request:
    """Give the guest's kernel 32 … 512 bytes of entropy."""
    return Request(Op.ENTROPY, string(seed))


def freeze(timeout_ms: int, mount_points: Sequence[str] = (), *, thaw: bool = False) -> Request:
    """Freeze file systems, or thaw them; the result is for :func:`read_u32`."""
    return Request(Op.FREEZE, _U32.pack(timeout_ms) + strings(mount_points), int(thaw))


def end(exec_id: str) -> Request:
    """Kill what an exec has started; the result is for :func:`read_u32`."""
    return Request(Op.END, string(exec_id))


FACTS, RUNS = Request(Op.FACTS), Request(Op.RUNS)


class Result(NamedTuple):
    """The payload of RESULT. ``fields`` are for the operation's reader; ``status`` may be one that is not known yet."""

    status: int
    errno: int = 0
    message: str = ""
    fields: bytes = b""

    @classmethod
    def decode(cls, payload: bytes) -> Result:
        """Raises :class:`WireError`."""
        if len(payload) < _RESULT.size:
            raise WireError("a result is too short")
        status, _, errno = _RESULT.unpack_from(payload)
        message, offset = _take_string(payload, _RESULT.size)
        return cls(status, errno, message[:_MOST_MESSAGE].decode(errors="replace"), payload[offset:])

    def encode(self) -> bytes:
        """As an agent sends it."""
        return _RESULT.pack(self.status, 0, self.errno) + string(self.message) + self.fields


class Cause(IntEnum):
    """Why a command ended."""

    BY_ITSELF = 0
    TIMEOUT = 1
    CANCELLED = 2


class Exit(NamedTuple):
    """How a command ended: ``code`` is its exit code or, if it was killed, the signal's number."""

    killed: bool
    code: int
    cause: int = 0
    user_us: int = 0
    system_us: int = 0
    resident_kib: int = 0

    @classmethod
    def decode(cls, fields: bytes) -> Exit:
        """Of EXEC's result. Raises :class:`WireError`."""
        killed, *rest = _unpack(_EXIT, fields)
        return cls(bool(killed), *rest)

    def encode(self) -> bytes:
        """As an agent sends it."""
        return _EXIT.pack(self.killed, self.code, self.cause, self.user_us, self.system_us, self.resident_kib)


class Entry(NamedTuple):
    """A file as the guest's kernel describes it; ``mode`` are the permission bits, ``target`` of a symbolic link."""

    kind: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    inode: int
    modified_ns: int
    name: bytes
    target: bytes = b""

    def encode(self) -> bytes:
        """As an agent sends it."""
        numbers = _ENTRY.pack(
            self.kind, self.mode, self.uid, self.gid, self.links, self.size, self.inode, self.modified_ns
        )
        return numbers + string(self.name) + string(self.target)


class EntryReader:
    """Cuts LIST's output into entries; feed it chunks of any size."""

    #: Longest name and link text, each with its length and zero byte.
    _MOST = _ENTRY.size + 2 * (4 + 4096 + 1)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Entry]:
        """Yield the entries that are complete now. Raises :class:`WireError`."""
        self._buffer += data
        while len(self._buffer) >= _ENTRY.size:
            head = bytes(self._buffer[: self._MOST])
            try:
                entry, size = _take_entry(head, 0)
            except WireError:
                if len(head) == self._MOST:
                    raise
                return
            del self._buffer[:size]
            yield entry

    def close(self) -> None:
        """The output has ended. Raises :class:`WireError` if it did in the middle of an entry."""
        if self._buffer:
            raise WireError("a list ends in the middle of an entry")


class PathInfo(NamedTuple):
    """STAT's result: ``leads_to`` is the kind of what the path leads to, ``real_path`` where, if it is a link."""

    leads_to: int
    entry: Entry
    real_path: bytes

    @classmethod
    def decode(cls, fields: bytes) -> PathInfo:
        """Raises :class:`WireError`."""
        if not fields:
            raise WireError("a result is too short")
        entry, offset = _take_entry(fields, 1)
        real_path, _ = _take_string(fields, offset)
        return cls(fields[0], entry, real_path)

    def encode(self) -> bytes:
        """As an agent sends it."""
        return bytes([self.leads_to]) + self.entry.encode() + string(self.real_path)


def read_u32(fields: bytes) -> int:
    """The one number of a result. Raises :class:`WireError`."""
    return int(_unpack(_U32, fields)[0])


def read_u64(fields: bytes) -> int:
    """The one number of a result. Raises :class:`WireError`."""
    return int(_unpack(_U64, fields)[0])


def read_i64(fields: bytes) -> int:
    """The one number of a result. Raises :class:`WireError`."""
    return int(_unpack(_I64, fields)[0])


def _unpack(layout: struct.Struct, fields: bytes) -> tuple[int, ...]:
    if len(fields) < layout.size:
        raise WireError("a result is too short")
    return layout.unpack_from(fields)


def _take_string(data: bytes, offset: int) -> tuple[bytes, int]:
    if len(data) < offset + _U32.size:
        raise WireError("a string is cut off")
    end = offset + _U32.size + _U32.unpack_from(data, offset)[0]
    if len(data) <= end or data[end]:
        raise WireError("a string is cut off")
    return data[offset + _U32.size : end], end + 1


def _take_entry(data: bytes, offset: int) -> tuple[Entry, int]:
    if len(data) < offset + _ENTRY.size:
        raise WireError("an entry is cut off")
    kind, mode, uid, gid, links, size, inode, modified_ns = _ENTRY.unpack_from(data, offset)
    name, offset = _take_string(data, offset + _ENTRY.size)
    target, offset = _take_string(data, offset)
    return Entry(kind, mode, uid, gid, links, size, inode, modified_ns, name, target), offset
