"""All network interfaces, by one question to the kernel (rtnetlink(7)).

Read without pyroute2, which decodes everything that the kernel says and takes two milliseconds for each interface: with
a thousand taps, every look at the host would hold up the whole daemon for seconds.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: ``nlmsghdr``, ``ifinfomsg`` and ``rtattr`` (linux/netlink.h, linux/rtnetlink.h); all in the host's byte order.
_HEADER, _INFO, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
_ERROR, _DONE, _NEWLINK, _GETLINK = 2, 3, 16, 18
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
#: linux/if_link.h.
_IFNAME, _MTU, _MASTER, _IFALIAS, _EXT_MASK = 3, 4, 10, 20, 29
_SKIP_STATISTICS = 1 << 3
_BUFFER_BYTES = 1 << 18
_TIMEOUT_S = 10.0
#: Interfaces that come and go meanwhile make an answer incomplete.
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Found:
    """One interface; ``master`` is the index of the bridge that it is a port of, or 0."""

    index: int
    name: str
    alias: str
    mtu: int
    master: int
    flags: int


class InterruptedDumpError(Exception):
    """The interfaces changed while they were listed."""


def dump_links() -> list[Found]:
    """Every interface of this thread's network namespace. Raises ``OSError``."""
    for left in reversed(range(_TRIES)):
        try:
            return _ask()
        except InterruptedDumpError:
            if not left:
                raise OSError("the interfaces change faster than they can be listed") from None
    raise AssertionError("there are tries")


def _ask() -> list[Found]:
    mask = _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, _EXT_MASK) + struct.pack("=I", _SKIP_STATISTICS)
    body = _INFO.pack(0, 0, 0, 0, 0) + mask
    question = _HEADER.pack(_HEADER.size + len(body), _GETLINK, _REQUEST | _DUMP, 1, 0) + body
    found: list[Found] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.bind((0, 0))
        netlink.send(question)
        while True:
            more, is_last = parse(netlink.recv(_BUFFER_BYTES))
            found += more
            if is_last:
                return found


def parse(data: bytes) -> tuple[list[Found], bool]:
    """The interfaces of one datagram, and whether it ends the answer.

    Raises:
        InterruptedDumpError: the answer is not of one moment.
        OSError: the kernel refuses.
    """
    found: list[Found] = []
    for kind, flags, body in _messages(data):
        if flags & _INTERRUPTED:
            raise InterruptedDumpError
        if kind == _DONE:
            return found, True
        if kind == _ERROR:
            code = -struct.unpack_from("=i", body)[0]
            raise OSError(code, "the kernel does not list network interfaces")
        if kind == _NEWLINK:
            found.append(_link(body))
    return found, False


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise OSError(errno.EMSGSIZE, "the list of network interfaces is cut")
        yield kind, flags, data[offset + _HEADER.size : offset + length]
        offset += _aligned(length)


def _link(body: bytes) -> Found:
    _, _, index, flags, _ = _INFO.unpack_from(body)
    values: dict[int, bytes] = {}
    offset = _INFO.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        values[kind] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(max(length, _ATTRIBUTE.size))
    return Found(
        index, _text(values, _IFNAME), _text(values, _IFALIAS), _number(values, _MTU), _number(values, _MASTER), flags
    )


def _text(values: dict[int, bytes], kind: int) -> str:
    return values.get(kind, b"").partition(b"\0")[0].decode(errors="replace")


def _number(values: dict[int, bytes], kind: int) -> int:
    value = values.get(kind, b"")
    return int(struct.unpack("=I", value)[0]) if len(value) == 4 else 0


def _aligned(length: int) -> int:
    return (length + 3) & ~3
