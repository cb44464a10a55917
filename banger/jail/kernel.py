"""System calls that Python's ``os`` does not have before 3.12, or at all. Each raises ``OSError``.

The numbers of those that C libraries do not have either are the same on every architecture (asm-generic/unistd.h).
"""

from __future__ import annotations

import ctypes
import os
import struct

_CLOSE_RANGE, _OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 436, 428, 429, 442
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_CLOSE_ON_EXEC = 1 << 2  # CLOSE_RANGE_CLOEXEC, linux/close_range.h
_EVERY_DESCRIPTOR = 0xFFFFFFFF

#: linux/sched.h
NEW_MOUNTS, NEW_CGROUPS, NEW_NAMES, NEW_IPC, NEW_USERS, NEW_PROCESSES, NEW_NETWORK = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
#: linux/mount.h, MOUNT_ATTR_*
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION = 1, 2, 4, 8
_AT_CWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_TREE_CLONE, _MOVE_FROM_EMPTY_PATH = 1, 4
_MS_NO_SUID, _MS_NO_EXECUTION, _MS_RECURSIVE, _MS_PRIVATE = 0x2, 0x8, 0x4000, 0x40000
_MNT_DETACH = 2

#: linux/landlock.h: asking for the version; the first one with scopes; the scope of abstract Unix sockets.
_RULESET_VERSION, _VERSION_OF_SCOPES, _ABSTRACT_SOCKETS = 1, 6, 1

#: linux/prctl.h
_NO_NEW_PRIVILEGES, _BOUNDING_DROP, _AMBIENT, _AMBIENT_CLEAR = 38, 24, 47, 4
_SIGNAL_OF_PARENTS_DEATH, _KILL = 1, 9
_CAPABILITY_VERSION = 0x20080522  # linux/capability.h, version 3

#: SIGPIPE and SIGXFSZ, signal(7). The module ``signal`` takes several ms for its enumerations.
_IGNORED_BY_PYTHON = (13, 25)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(function: str, *arguments: object) -> int:
    """Call the C library's; whole numbers go as ``long``, which variadic ones take as they are."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(getattr(_libc, function)(*words))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def restore_signals() -> None:
    """What Python ignores from its start, its successor would ignore too."""
    for number in _IGNORED_BY_PYTHON:
        _libc.signal(number, None)


def close_others_on_exec() -> None:
    """Mark every descriptor above the standard three (Linux 5.11)."""
    _call("syscall", _CLOSE_RANGE, 3, _EVERY_DESCRIPTOR, _CLOSE_ON_EXEC)


def enter_namespace(fd: int) -> None:
    """setns(2), whatever kind ``fd`` is of."""
    _call("setns", fd, 0)


def leave_namespaces(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", flags)


def set_host_name(name: str) -> None:
    """Of the UTS namespace."""
    _call("sethostname", name.encode(), len(name))


def make_mounts_private() -> None:
    """Nothing that is mounted from now on is seen outside. The root directory must be a mount."""
    _call("mount", b"none", b"/", None, _MS_RECURSIVE | _MS_PRIVATE, None)


def mount_empty_directory(path: str, options: str, *, is_executable: bool = False) -> None:
    """A tmpfs, from which nothing is executed unless it says so."""
    flags = _MS_NO_SUID | (0 if is_executable else _MS_NO_EXECUTION)
    _call("mount", b"tmpfs", os.fsencode(path), b"tmpfs", flags, options.encode())


def take_tree(path: str) -> int:
    """A copy of what is mounted at a path, mounted nowhere yet, as a descriptor (open_tree(2))."""
    return _call("syscall", _OPEN_TREE, _AT_CWD, os.fsencode(path), _TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC)


def protect_tree(tree: int, flags: int) -> None:
    """Set attributes of a taken tree and of everything mounted in it (mount_setattr(2), Linux 5.12)."""
    _set_attributes(tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, flags)


def protect_mount(path: str, flags: int) -> None:
    """Set attributes of the one mount at a path."""
    _set_attributes(_AT_CWD, os.fsencode(path), 0, flags)


def _set_attributes(directory: int, path: bytes, how: int, flags: int) -> None:
    attributes = struct.pack("=4Q", flags, 0, 0, 0)  # struct mount_attr: set, clear, propagation, user namespace
    _call("syscall", _MOUNT_SETATTR, directory, path, how, attributes, len(attributes))


def mount_tree(tree: int, path: str) -> None:
    """Mount a taken tree (move_mount(2))."""
    _call("syscall", _MOVE_MOUNT, tree, b"", _AT_CWD, os.fsencode(path), _MOVE_FROM_EMPTY_PATH)


def exchange_root() -> None:
    """The working directory becomes the root, and the old one is mounted over it (pivot_root(2), "."  and ".")."""
    _call("pivot_root", b".", b".")


def let_go_of_mount(path: str) -> None:
    """Unmount now, for this process; it ends with whoever else uses it."""
    _call("umount2", path.encode(), _MNT_DETACH)


def end_with_parent() -> None:
    """Be killed when the thread ends that started this process (PR_SET_PDEATHSIG). A change of user undoes it."""
    _call("prctl", _SIGNAL_OF_PARENTS_DEATH, _KILL, 0, 0, 0)


def refuse_new_privileges() -> None:
    """No program that is executed gets more than there is (PR_SET_NO_NEW_PRIVS)."""
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def keep_to_own_abstract_sockets() -> None:
    """Call no Unix socket without a path but those of this process and its children (landlock(7), Linux 6.12).

    All else stays allowed. There must be no new privileges. Nothing happens where the kernel cannot do this.
    """
    try:
        version = _call("syscall", _CREATE_RULESET, None, 0, _RULESET_VERSION)
    except OSError:
        return
    if version < _VERSION_OF_SCOPES:
        return
    attributes = struct.pack("=3Q", 0, 0, _ABSTRACT_SOCKETS)  # struct landlock_ruleset_attr: files, network, scopes
    rules = _call("syscall", _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _call("syscall", _RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def drop_from_bounding_set(capability: int) -> None:
    """No program that is executed gets this capability."""
    _call("prctl", _BOUNDING_DROP, capability, 0, 0, 0)


def clear_ambient_capabilities() -> None:
    """Those that an executed program inherits."""
    _call("prctl", _AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)


def drop_capabilities() -> None:
    """All that this process has or could take."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _call("capset", header, struct.pack("=6I", 0, 0, 0, 0, 0, 0))
