"""What the VMM is handed: files, listening sockets and taps, opened with the rights of whoever started us.

Each is put at the number that the VMM was told.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from _socket import AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM, socket  # without the enumerations, which take 8 ms

from banger.jail import kernel
from banger.jail.failure import Doing, JailError

_MODES = {
    "read": os.O_RDONLY,
    "write": os.O_RDWR,
    "append": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
}
_MOST_OF_A_SOCKETS_PATH = 107  # sun_path, and its end, unix(7)
_MOST_OF_A_TAPS_NAME = 15  # IFNAMSIZ, and its end, linux/if.h
#: linux/if_tun.h; the flags are those with which QEMU itself opens a tap (QEMU: net/tap-linux.c).
_TUNSETIFF, _TUNSETOWNER, _TAP = 0x400454CA, 0x400454CC, 0x0002 | 0x1000 | 0x4000
_SIOCGIFFLAGS = 0x8913


def close_others() -> None:
    """Have every descriptor but the standard three close at the execution, except what is opened here."""
    try:
        kernel.close_others_on_exec()
    except OSError:
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2:
                _mark_closing(int(name))


def open_file(number: int, mode: str, path: str) -> None:
    """Open a file; ``append`` makes it, for its owner alone."""
    if mode not in _MODES:
        raise JailError(f'no such mode: "{mode}"')
    with Doing("open", path):
        _place(os.open(path, _MODES[mode] | os.O_CLOEXEC | os.O_NOCTTY, 0o600), number)


def listen_at(number: int, path: str) -> None:
    """Listen on a Unix socket that only its owner can call."""
    with Doing("listen at", path):
        if len(os.fsencode(path)) > _MOST_OF_A_SOCKETS_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        listener = socket(AF_UNIX, SOCK_STREAM)
        mask = os.umask(0o177)
        listener.bind(path)
        listener.listen(1)
        os.umask(mask)
        _place(listener.detach(), number)


def attach_tap(number: int, name: str) -> None:
    """Have a tap open as a descriptor."""
    _place(_attached(name), number)


def make_tap(number: int) -> None:
    """A tap of nobody else's, in an empty network namespace: it goes with its descriptor."""
    _place(_opened_tap("own"), number)


def lend_tap(name: str, uid: int) -> None:
    """Let a user attach to a tap, by its name."""
    tap = _attached(name)
    with Doing("lend the tap", name):
        fcntl.ioctl(tap, _TUNSETOWNER, uid)
    os.close(tap)


def _attached(name: str) -> int:
    """A descriptor of a tap that is there: one that is not would be made by this, and be nobody's."""
    if not 0 < len(name.encode()) <= _MOST_OF_A_TAPS_NAME:
        raise JailError(f'no name of a tap: "{name}"')
    with Doing("find the tap", name):
        probe = socket(AF_INET, SOCK_DGRAM)
        fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        probe.close()
    return _opened_tap(name)


def _opened_tap(name: str) -> int:
    """A descriptor of a tap, which is made if it is not there."""
    with Doing("open", "/dev/net/tun"):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    with Doing("attach to the tap", name):
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP))
    return tap


def keep(number: int) -> None:
    """Leave an inherited descriptor open."""
    with Doing("keep", str(number)):
        os.set_inheritable(number, True)


def _place(fd: int, number: int) -> None:
    if fd == number:
        os.set_inheritable(fd, True)
        return
    os.dup2(fd, number)
    os.close(fd)


def _mark_closing(fd: int) -> None:
    try:
        os.set_inheritable(fd, False)
    except OSError:  # the one with which the directory was listed
        return
