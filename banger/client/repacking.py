"""Converting any tar stream into one that every guest can read, member by member, in bounded memory.

The guest's tar is busybox's: it knows nothing of the sparse files of others, and not all of it knows POSIX's extended
headers, in which Python, Go and ``tar --format=posix`` put long and non-ASCII names.
"""

from __future__ import annotations

import copy
import tarfile
from hashlib import blake2b

from banger.client.archive import ContentFile, OneTree, Receive, hostile, members, reading
from banger.client.ceiling import MOST_BYTES, Ceiling
from banger.client.decompressing import decompressing
from banger.client.packing import Send, TarSender
from banger.core.errors import BangerError, ErrorKind

#: GNU tar's volume label, and the rest of a file that began in another volume.
_NO_FILES = frozenset({b"V", b"M"})
#: GNU tar's directory with a list of what it holds.
_LISTED_DIRECTORY = b"D"
_NO_ARCHIVE = "standard input is not a whole tar archive"
#: Of one tree; each is remembered, by its hash.
_MOST_LINKS = 500_000
_NO_GUEST_ARCHIVE = "the guest did not send a tar archive that can be read"


def repack(receive: Receive, send: Send) -> None:
    """Send what an archive of the user's holds, with its names and owners; one that is compressed is decompressed.

    Reads to the end of the stream: who writes into it would be told of a broken pipe otherwise.

    Raises:
        BangerError: ``invalid`` for what is no archive, or not a whole one.
    """
    with reading(decompressing(receive), _NO_ARCHIVE) as tar, TarSender(send) as sender:
        for member in members(tar):
            if member.type not in _NO_FILES:
                _add(sender, tar, member, member.name, member.linkname)
    while receive():
        pass


def relay(receive: Receive, send: Send, top: str, *, keep_owner: bool = False, most_bytes: int = MOST_BYTES) -> None:
    """Send one guest's tree to another, under another name; the first is not trusted with anything of the second.

    Args:
        receive: the archive.
        send: takes the new one.
        top: name of the topmost entry; empty sends only what it holds.
        keep_owner: keep owners and groups by number; otherwise everything is root's.
        most_bytes: what the whole tree may take.

    Raises:
        BangerError: ``invalid`` for what is no archive, or has members out of its tree or behind a link of its own,
            ``exhausted`` for too much.
    """
    tree, links, ceiling = OneTree(), _Links(), Ceiling(most_bytes)
    prefix = (top,) if top else ()
    with reading(receive, _NO_GUEST_ARCHIVE) as tar, TarSender(send) as sender:
        for member in members(tar):
            path = (*prefix, *tree.inside(member.name))
            if not path:
                continue
            ceiling.add_entry(member.size)
            if links.lead_to(path):
                raise hostile(member.name, "it lies behind a link")
            if member.issym():
                links.add(path)
            target = "/".join((*prefix, *tree.inside(member.linkname))) if member.islnk() else member.linkname
            if not keep_owner:
                member.uid = member.gid = 0
            member.uname = member.gname = ""
            _add(sender, tar, member, "/".join(path), target)


class _Links:
    """The symbolic links of one tree."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def add(self, path: tuple[str, ...]) -> None:
        """Remember one."""
        if len(self._known) >= _MOST_LINKS:
            message = f"the guest sends more than {_MOST_LINKS} symbolic links"
            raise BangerError(ErrorKind.EXHAUSTED, message, hint="copy the directories in it one by one")
        self._known.add(_digest("/".join(path)))

    def lead_to(self, path: tuple[str, ...]) -> bool:
        """True if one of them is on the way to ``path``."""
        return bool(self._known) and any(
            _digest("/".join(path[:depth])) in self._known for depth in range(1, len(path))
        )


def _digest(path: str) -> bytes:
    return blake2b(path.encode(errors="surrogateescape"), digest_size=16).digest()


def _add(sender: TarSender, tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, target: str) -> None:
    plain = copy.copy(member)
    plain.name, plain.linkname, plain.pax_headers = name, target, {}
    if member.type == _LISTED_DIRECTORY:
        plain.type, plain.size = tarfile.DIRTYPE, 0
    elif member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:  # POSIX: an unknown kind is a file
        plain.type, plain.sparse = tarfile.REGTYPE, None  # its holes are read as zeros
        sender.add(plain, ContentFile(tar, member))
        return
    sender.add(plain)
