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

    def __init__(self, path: str, flags: int) -> None:
        with Doing("see", path):
            mode = os.lstat(path).st_mode
            self.link = os.readlink(path) if stat.S_ISLNK(mode) else ""
        self.path = path
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
        place = _place_of(self.path)
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


def make_root(wanted: Wanted) -> None:
    """Replace the root directory."""
    visible = [_Piece(path, kernel.READ_ONLY | kernel.NO_SUID | kernel.NO_DEVICES) for path in wanted.visible]
    devices = [(_Piece(path, kernel.NO_SUID | kernel.NO_EXECUTION), _device_at(path)) for path in wanted.devices]
    with Doing("mount", "an empty root"):
        kernel.mount_empty_directory("/", _EMPTY_ROOT)
        os.chdir("/..")  # the working directory is still in the old root; ".." of a root is what is mounted over it
    for piece in visible:
        piece.put()
    for piece, device in devices:
        if not wanted.uid or not _made_node(wanted, piece.path, device):
            piece.put()
    _leave_old_root()


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


def _device_at(path: str) -> int:
    with Doing("see", path):
        status = os.stat(path)
    if not stat.S_ISCHR(status.st_mode):
        raise JailError(f'no character device: "{path}"')
    return status.st_rdev


def _made_node(wanted: Wanted, path: str, device: int) -> bool:
    """A node that belongs to the VMM's user; without the right to make one, the host's is shown."""
    place = _place_of(path)
    with Doing("make", path):
        try:
            os.mknod(place, stat.S_IFCHR | 0o600, device)
        except PermissionError:
            return False
        os.chown(place, wanted.uid, wanted.gid)
    return True


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
