"""The files that every Linux system is expected to have."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator

from banger.lint.finding import Finding, Severity
from banger.lint.programs import Init, executable
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.refusals import shown

_DIRECTORIES = (b"/bin", b"/sbin", b"/lib")
_PASSWD = b"/etc/passwd"
_RESOLVER = b"/etc/resolv.conf"
_OS_RELEASE = (b"/etc/os-release", b"/usr/lib/os-release")
_TEXT_BYTES = 64 << 10
_NAME_CHARACTERS = 200


def check_directories(image: Ext4Reader) -> Iterator[Finding]:
    """Say whether the places of programs are there, and whether they are the merged ones of ``/usr``."""
    links = 0
    for path in _DIRECTORIES:
        inode = image.find(path, follow=False)
        if inode is None:
            continue
        target = image.find(path)
        links += inode.is_symlink
        if target is None or not target.is_directory:
            what = (
                f"a link to {shown(image.readlink(inode))}, which leads nowhere" if inode.is_symlink else "no directory"
            )
            yield Finding(Severity.ERROR, "directory-broken", f"{shown(path)} is {what}")
    if links == len(_DIRECTORIES):
        yield Finding(Severity.INFO, "usr-merged", "/bin, /sbin and /lib are links into /usr")


def check_accounts(image: Ext4Reader) -> Iterator[Finding]:
    """Say whether root can log in."""
    text = read_text(image, _PASSWD)
    if text is None:
        yield Finding(
            Severity.INFO, "passwd-missing", f"there is no {shown(_PASSWD)}; banger writes one with only root"
        )
        return
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 7 and fields[0] == "root":
            shell = fields[6].encode()
            if shell and executable(image, shell) is None:
                message = f"root's shell {shown(shell)} is not in the image"
                yield Finding(Severity.WARNING, "root-shell-missing", message)
            return
    yield Finding(Severity.WARNING, "root-missing", f"{shown(_PASSWD)} has no line for root")


def check_resolver(image: Ext4Reader, init: Init) -> Iterator[Finding]:
    """Say whether names will resolve: with an init of the image's own a link is taken for its resolver's."""
    inode = image.find(_RESOLVER, follow=False)
    if inode is None or not inode.is_symlink or image.find(_RESOLVER) is not None:
        return
    target = shown(image.readlink(inode))
    if init is Init.NONE:
        message = f"{shown(_RESOLVER)} is a dangling link to {target}; banger replaces it"
        yield Finding(Severity.INFO, "resolver-dangling", message)
    else:
        message = f"{shown(_RESOLVER)} is a dangling link to {target}: names resolve only if a service makes that file"
        yield Finding(Severity.WARNING, "resolver-dangling", message)


def check_release(image: Ext4Reader) -> Iterator[Finding]:
    """Say which distribution it is (os-release(5))."""
    for path in _OS_RELEASE:
        text = read_text(image, path)
        if text is None:
            continue
        fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        name = _unquoted((fields.get("PRETTY_NAME") or fields.get("NAME") or "")[:_NAME_CHARACTERS])
        if name:
            yield Finding(Severity.INFO, "release", f"the image says it is {shown(name.encode())}")
        return


def read_text(image: Ext4Reader, path: bytes) -> str | None:
    """The first 64 KiB of a small text file, links followed; ``None`` if there is none."""
    inode = image.find(path)
    if inode is None or not inode.is_file:
        return None
    with io.BufferedReader(image.open(inode)) as file:
        return file.read(_TEXT_BYTES).decode(errors="replace")


def _unquoted(value: str) -> str:
    """A value without the quotes of a shell; as it is, if they are malformed."""
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value
