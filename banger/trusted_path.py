"""Whether a directory can be trusted: only root and this user may change anything on the path to it.

Somebody who makes a directory first, where ours will be looked for, could plant links in it that we write through, or a
socket that we tell our secrets to. So every directory on the way is looked at as it stands, links included, before
anything in it is opened (the rule that sshd has for its files: ``StrictModes`` in sshd_config(5)).
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind

#: Links on the way, as many as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40
#: An access control list as the kernel shows it: a version, then entries of tag, permissions and id
#: (Linux: ``include/uapi/linux/posix_acl_xattr.h``, ``posix_acl.h``).
_ACL, _ACL_VERSION, _ACL_ENTRY = "system.posix_acl_access", struct.Struct("<I"), struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP = 0x02, 0x04, 0x08
_ACL_WRITE = 2


def check_trusted(path: Path, uid: int | None = None) -> None:
    """Raise ``denied`` if another user could have put something else at ``path``, or made it; it need not exist.

    Args:
        path: absolute; what exists of it is looked at.
        uid: of the user who is to be its owner; this process's by default.
    """
    uid = os.geteuid() if uid is None else uid
    links, todo, here = 0, list(path.parts[1:]), Path(path.anchor)
    _check_directory(here, here.stat(), uid)
    while todo:
        part = todo.pop(0)
        if part == "..":
            here = here.parent
            continue
        entry = here / part
        try:
            found = entry.lstat()
        except FileNotFoundError:
            return  # whoever can make it is trusted: the directory that it will be in was looked at
        except NotADirectoryError as error:
            raise _denied(entry, "something on the way to it is not a directory") from error
        if not stat.S_ISLNK(found.st_mode):
            here = entry
            if todo or stat.S_ISDIR(found.st_mode):
                _check_directory(here, found, uid)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise _denied(path, "there are too many links on the way to it")
        if not _is_ours(found.st_uid, uid):
            raise _denied(entry, f"it is a link that user {found.st_uid} made")
        target = entry.readlink()
        here = Path(target.anchor) if target.is_absolute() else here
        todo[:0] = target.parts[1:] if target.is_absolute() else target.parts


def check_own(path: Path, uid: int | None = None) -> None:
    """As :func:`check_trusted`, and what is at ``path`` must be a directory of this user alone.

    Raises:
        BangerError: ``denied``.
    """
    uid = os.geteuid() if uid is None else uid
    check_trusted(path, uid)
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if found.st_uid != uid:
        raise _denied(path, f"it belongs to user {found.st_uid}, this is user {uid}")
    if not stat.S_ISDIR(found.st_mode):
        raise _denied(path, "it is not a directory")
    _check_writers(path, found, uid)


def check_program(path: Path, uid: int | None = None) -> None:
    """As :func:`check_trusted`, and nobody else may write into the file that is at ``path``, or could have made it.

    Raises:
        BangerError: ``denied``.
        OSError: it is not there.
    """
    uid = os.geteuid() if uid is None else uid
    check_trusted(path, uid)
    found = path.stat()
    if not _is_ours(found.st_uid, uid):
        raise _denied(path, f"it belongs to user {found.st_uid}, who could change it")
    _check_writers(path, found, uid)


def _check_directory(path: Path, found: os.stat_result, uid: int) -> None:
    """Others may write into a directory only where none but its owner can take away or rename an entry (sticky)."""
    if not _is_ours(found.st_uid, uid):
        raise _denied(path, f"it belongs to user {found.st_uid}, who could put something else there")
    if not found.st_mode & stat.S_ISVTX:
        _check_writers(path, found, uid)


def _check_writers(path: Path, found: os.stat_result, uid: int) -> None:
    if found.st_mode & stat.S_IWOTH:
        raise _denied(path, "everybody may write into it, and could put something else there")
    if found.st_mode & stat.S_IWGRP:  # of a directory with an access control list, this is that list's mask
        _check_groups(path, found, uid)


def _check_groups(path: Path, found: os.stat_result, uid: int) -> None:
    users, groups = [], []
    for tag, one in _writers(path):
        if tag == _ACL_USER and not _is_ours(one, uid):
            users.append(one)
        elif tag != _ACL_USER:
            groups.append(found.st_gid if tag == _ACL_GROUP_OBJ else one)
    if users:
        raise _denied(path, f"user {users[0]} may write into it (getfacl), and could put something else there")
    for gid in groups:
        if others := _others_in(gid, uid):
            raise _denied(path, f"its group may write into it, and {others[0]} could put something else there")


def _writers(path: Path) -> Iterator[tuple[int, int]]:
    """The users and groups that may write besides owner and others: tag and id (the group's own has none), acl(5)."""
    try:
        raw = os.getxattr(path, _ACL)
    except OSError:  # it has none, or its file system knows none
        yield _ACL_GROUP_OBJ, 0
        return
    for tag, permissions, one in _ACL_ENTRY.iter_unpack(raw[_ACL_VERSION.size :]):
        if tag in (_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP) and permissions & _ACL_WRITE:
            yield tag, one


def _others_in(gid: int, uid: int) -> list[str]:
    """Who besides root and this user is in a group, as far as the accounts tell; in a group of one's own, nobody."""
    if gid == _unmapped_uid():
        return []
    everybody = pwd.getpwall()
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    if gid != 0:  # of which some distributions make accounts by which nobody logs in (sync, halt)
        members |= {one.pw_name for one in everybody if one.pw_gid == gid}
    return sorted(members - {one.pw_name for one in everybody if one.pw_uid in (0, uid)})


def _is_ours(owner: int, uid: int) -> bool:
    return owner in (0, uid) or owner == _unmapped_uid()


@cache
def _unmapped_uid() -> int | None:
    """The uid that stands for all that a user namespace does not know, the host's root above all.

    None where it may be somebody in here as well: in the first namespace, and in one that maps this very uid. See
    user_namespaces(7): ``/proc/sys/kernel/overflowuid``, and the map.
    """
    try:
        unmapped = int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="utf-8"))
        lines = Path("/proc/self/uid_map").read_text(encoding="utf-8").splitlines()
        ranges = [(int(first), int(count)) for first, _, count in (line.split() for line in lines)]
    except (OSError, ValueError):
        return None
    return None if any(first <= unmapped < first + count for first, count in ranges) else unmapped


def _denied(path: Path, why: str) -> BangerError:
    return BangerError(
        ErrorKind.DENIED, f'"{path}" cannot be trusted', subject=str(path), cause=why,
        hint=f"ls -ld '{path}'; set BANGER_HOME to a directory of yours",
    )  # fmt: skip
