"""A root directory with nothing in it but what was asked for, in namespaces of its own.

Everything that shall be seen is taken first, as mounts that are attached nowhere yet (open_tree(2)); then an empty root
is mounted, they are put into it, and the old root is let go. Linux 5.12 is needed, for mount_setattr(2).
"""

from __future__ import annotations

import errno
import os
import stat

from banger.jail import kernel
from banger.jail.failure import Doing, JailError
from banger.jail.wanted import Wanted

_NAMESPACES = kernel.NEW_MOUNTS | kernel.NEW_IPC | kernel.NEW_NAMES | kernel.NEW_CGROUPS
_EMPTY_ROOT = "mode=0755,size=1m,nr_inodes=1k"


class _Piece:
    """What goes to a place: a mount, or, where the original is a symbolic link, that link."""

    def __init__(self, path: str, flags: int, place: str = "") -> None:
        with Doing("see", path):
            mode = os.lstat(path).st_mode
            self.link = os.readlink(path) if stat.S_ISLNK(mode) else ""
        self.path = path
        self.place = place or path
        self.is_directory = stat.S_ISDIR(mode)
        self.tree = -1
        if self.link:
            return
        with Doing("take", path):
            self.tree = kernel.take_tree(path)
        with Doing("protect", path):
            kernel.protect_tree(self.tree, flags)

    def put(self) -> None:
        """Into the working directory, which is the new root."""
        place = _place_of(self.place)
        with Doing("show", self.path):
            if self.link:
                _unless_there(os.symlink, self.link, place)
                return
            if self.is_directory:
                _unless_there(os.mkdir, place, 0o755)
            else:
                _unless_there(os.mknod, place, stat.S_IFREG | 0o444)
            kernel.mount_tree(self.tree, place)
            os.close(self.tree)


class _Node:
    """A device node at a place. One that may be written belongs to the VMM's user, who could change any mode of it."""

    def __init__(self, path: str, kind: int, mode: int, place: str = "") -> None:
        with Doing("see", path):
            status = os.stat(path)
        if stat.S_IFMT(status.st_mode) != kind:
            raise JailError(f'no {"character" if kind == stat.S_IFCHR else "block"} device: "{path}"')
        self.path = path
        self.place = place or path
        self.mode = kind | mode
        self.device = status.st_rdev

    def made(self, wanted: Wanted) -> bool:
        """Make it in the working directory; False without the right to."""
        place = _place_of(self.place)
        with Doing("make", self.path):
            try:
                os.mknod(place, self.mode, self.device)
            except PermissionError:
                return False
            if self.mode & stat.S_IWUSR:
                os.chown(place, wanted.uid, wanted.gid)
        return True


def enter_namespaces(wanted: Wanted) -> None:
    """Of its own; in one of the users those who are not root are the owners of the others."""
    if wanted.has_user_namespace:
        _become_owner_of_namespaces()
    if wanted.has_no_network:
        with Doing("make", "a network namespace"):
            kernel.leave_namespaces(kernel.NEW_NETWORK)
    if wanted.has_root:
        with Doing("make", "namespaces"):
            kernel.leave_namespaces(_NAMESPACES)
            kernel.set_host_name("vm")
        with Doing("detach from the host", "/"):
            kernel.make_mounts_private()


def enter_process_namespace() -> None:
    """As its process 1. Who makes such a namespace is not in it, but its next child is."""
    with Doing("make", "a process namespace"):
        kernel.leave_namespaces(kernel.NEW_PROCESSES)
        if os.fork():
            os._exit(0)
        os.setsid()


def make_root(wanted: Wanted) -> None:
    """Replace the root directory."""
    visible = [_Piece(path, kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEVICES) for path in wanted.visible]
    placed = [_placed(*one) for one in wanted.put]
    devices = [
        (_Piece(one, kernel.NO_SUID | kernel.NO_EXECUTION), _Node(one, stat.S_IFCHR, 0o600)) for one in wanted.devices
    ]
    with Doing("mount", "an empty root"):
        kernel.mount_empty_directory("/", _EMPTY_ROOT)
        os.chdir("/..")  # the working directory is still in the old root; ".." of a root is what is mounted over it
    if wanted.scratch[0]:
        _make_scratch(*wanted.scratch)
    for piece in visible:
        piece.put()
    for one in placed:
        if isinstance(one, _Piece):
            one.put()
        elif not one.made(wanted):
            raise JailError(f'not allowed to make a device node: "{one.path}"')
    for piece, node in devices:
        if not wanted.uid or not node.made(wanted):
            piece.put()
    _leave_old_root()


def _placed(mode: str, path: str, place: str) -> _Piece | _Node:
    """What is put to another place: what ``path`` leads to, whatever links are on the way."""
    path, is_read_only = os.path.realpath(path), mode == "read"
    with Doing("see", path):
        is_block_device = stat.S_ISBLK(os.stat(path).st_mode)
    if is_block_device:
        return _Node(path, stat.S_IFBLK, 0o444 if is_read_only else 0o600, place)
    flags = kernel.NO_SUID | kernel.NO_DEVICES | kernel.NO_EXECUTION
    return _Piece(path, flags | (kernel.READ_ONLY if is_read_only else 0), place)


def _make_scratch(path: str, size_bytes: int) -> None:
    place = _place_of(path)
    with Doing("make", path):
        _unless_there(os.mkdir, place, 0o755)
        kernel.mount_empty_directory(place, f"mode=0755,size={size_bytes},nr_inodes=1k", is_executable=True)


def _become_owner_of_namespaces() -> None:
    """To everybody outside, and for every file, this process stays who it is."""
    uid, gid = os.geteuid(), os.getegid()
    with Doing("make", "a user namespace"):
        kernel.leave_namespaces(kernel.NEW_USERS)
        write_text("/proc/self/uid_map", f"{uid} {uid} 1")
        write_text("/proc/self/setgroups", "deny")
        write_text("/proc/self/gid_map", f"{gid} {gid} 1")


def write_text(path: str, text: str) -> None:
    """To a file of the kernel's. Raises ``OSError``."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _place_of(path: str) -> str:
    """Below the working directory; what leads there is made."""
    parts = path.strip("/").split("/")
    for depth in range(1, len(parts)):
        with Doing("make a place for", path):
            _unless_there(os.mkdir, "/".join(parts[:depth]), 0o755)
    return "/".join(parts)


def _unless_there(make: object, *arguments: object) -> None:
    try:
        make(*arguments)  # type: ignore[operator]
    except FileExistsError:
        return


def _leave_old_root() -> None:
    """Where the root is no mount that can be exchanged (an initramfs), the old one stays below the new one.

    Nobody who has no capability and no open directory gets there.
    """
    with Doing("change to", "the new root"):
        try:
            kernel.exchange_root()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.chroot(".")
        else:
            kernel.let_go_of_mount(".")
        os.chdir("/")
        kernel.protect_mount("/", kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_EXECUTION)
