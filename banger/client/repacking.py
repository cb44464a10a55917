"""A tar stream of any kind made into one that every guest reads, member by member, in bounded memory.

The guest's tar is busybox's: it knows nothing of the sparse files of others, and not all of it knows POSIX's extended
headers, in which Python, Go and ``tar --format=posix`` put long and non-ASCII names.
"""

from __future__ import annotations

import copy
import tarfile

from banger.client.archive import OneTree, Receive, hostile, members, reading
from banger.client.packing import Send, TarSender

#: GNU tar's volume label, and the rest of a file that began in another volume.
_NO_FILES = frozenset({b"V", b"M"})
#: GNU tar's directory with a list of what it holds.
_LISTED_DIRECTORY = b"D"
_NO_ARCHIVE = "standard input is not a whole tar archive"
_NO_GUEST_ARCHIVE = "the guest did not send a tar archive that can be read"


def repack(receive: Receive, send: Send) -> None:
    """Send what an archive of the user's holds, with its names and owners; one that is compressed is decompressed.

    Reads to the end of the stream: who writes into it would be told of a broken pipe otherwise.

    Raises:
        BangerError: ``invalid`` for what is no archive, or not a whole one.
    """
    with reading(receive, _NO_ARCHIVE, compressed=True) as tar, TarSender(send) as sender:
        for member in members(tar):
            if member.type not in _NO_FILES:
                _add(sender, tar, member, member.name, member.linkname)
    while receive():
        pass


def relay(receive: Receive, send: Send, top: str, *, keep_owner: bool = False) -> None:
    """Send one guest's tree to another, under another name; the first is not trusted with anything of the second.

    Args:
        receive: the archive.
        send: takes the new one.
        top: name of the topmost entry; empty sends only what it holds.
        keep_owner: keep owners and groups by number; otherwise everything is root's.

    Raises:
        BangerError: ``invalid`` for what is no archive, or has members out of its tree or behind a link of its own.
    """
    tree, links = OneTree(), set[tuple[str, ...]]()
    prefix = (top,) if top else ()
    with reading(receive, _NO_GUEST_ARCHIVE) as tar, TarSender(send) as sender:
        for member in members(tar):
            path = (*prefix, *tree.inside(member.name))
            if not path:
                continue
            if any(path[:depth] in links for depth in range(1, len(path))):
                raise hostile(member.name, "it lies behind a link")
            if member.issym():
                links.add(path)
            target = "/".join((*prefix, *tree.inside(member.linkname))) if member.islnk() else member.linkname
            if not keep_owner:
                member.uid = member.gid = 0
            member.uname = member.gname = ""
            _add(sender, tar, member, "/".join(path), target)


def _add(sender: TarSender, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, target: str) -> None:
    plain = copy.copy(member)
    plain.name, plain.linkname, plain.pax_headers = name, target, {}
    if member.type == _LISTED_DIRECTORY:
        plain.type, plain.size = tarfile.DIRTYPE, 0
    elif member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:  # POSIX: an unknown kind is a file
        plain.type, plain.sparse = tarfile.REGTYPE, None  # its holes are read as zeros
        sender.add(plain, tar.extractfile(member))
        return
    sender.add(plain)
