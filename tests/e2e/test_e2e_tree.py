"""An image pulled from a registry is, inside the guest, what an independent tool unpacks from the same layers."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support import images
from tests.support.daemon import BangerHome, RunningVm
from tests.support.programs import missing_programs

pytestmark = [pytest.mark.boot, pytest.mark.registry, pytest.mark.root, pytest.mark.slow]

#: Made by the running system, not by the image.
RUNTIME = ("dev", "proc", "run", "sys", "tmp")
#: Written by banger on the first boot: the guest's names and its resolver.
WRITTEN = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
#: Where the running kernel's modules are mounted.
MODULES = "usr/lib/modules"
#: Directories in which one of these was made: their times are those of the overlay.
TOUCHED = ("", "etc", "usr/lib")

#: Nine fields per entry, each ended by NUL: path, type, mode, uid, gid, size, mtime, links, link target.
FIND = r"find / -xdev -printf '%P\0%y\0%m\0%U\0%G\0%s\0%T@\0%n\0%l\0'"
HASHES = "find / -xdev -type f -print0 | xargs -0 sha256sum -z --"
XATTRS = "getfattr --absolute-names -R -P -h -d -m - -e hex / 2>/dev/null"


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything about a file that an image decides. ``size`` is a directory's own business, so it is 0 there."""

    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    target: str
    digest: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()


@pytest.fixture(scope="module")
def unpacked(session_root: Path) -> Iterator[Path]:
    """The tree that umoci unpacks."""
    if os.getuid() != 0 or missing_programs("umoci"):
        pytest.skip("needs root and umoci")
    bundle = session_root / "bundle"
    command = ["umoci", "unpack", "--image", images.layered().reference, str(bundle)]
    subprocess.run(command, check=True, capture_output=True)
    yield bundle / "rootfs"
    shutil.rmtree(bundle)


def test_tree_in_the_guest_equals_what_umoci_unpacks(
    home: BangerHome, layered: str, running_vm: RunningVm, unpacked: Path
) -> None:
    with running_vm(layered, "pristine") as vm:  # tests that share a VM leave times behind in its directories
        ours, theirs = guest_tree(home, vm), host_tree(unpacked)
    assert len(ours) > 3000
    assert sorted(set(ours) ^ set(theirs)) == []
    different = {path: (ours[path], theirs[path]) for path in ours if ours[path] != theirs[path]}
    assert not different, "\n".join(
        f"{path}\n  ours   {a}\n  theirs {b}" for path, (a, b) in list(different.items())[:20]
    )


def test_one_of_everything_is_in_the_comparison(unpacked: Path) -> None:
    """Guards the test above: were the image without oddities, it would prove little."""
    tree = host_tree(unpacked)
    assert {entry.kind for entry in tree.values()} >= {"f", "d", "l", "p", "c"}
    assert tree["srv/setuid"].mode == "4711"
    assert tree["srv/data/plain"].links == 3
    assert dict(tree["srv/capable"].xattrs).keys() == {"security.capability"}
    assert "srv/opaque/old" not in tree
    assert "srv/opaque/new" in tree
    assert "srv/removed-tree" not in tree
    assert "etc/issue" not in tree


def guest_tree(home: BangerHome, vm: str) -> dict[str, Entry]:
    tree: dict[str, Entry] = {}
    fields = home.guest(vm, FIND).ok().output.decode(errors="surrogateescape").split("\0")[:-1]
    for path, kind, mode, uid, gid, size, mtime, links, target in zip(*[iter(fields)] * 9, strict=True):
        tree[path] = Entry(kind, mode, int(uid), int(gid), int(size), int(mtime.partition(".")[0]), int(links), target)
    for line in home.guest(vm, HASHES).ok().output.split(b"\0")[:-1]:
        digest, _, path = line.decode(errors="surrogateescape").partition("  /")
        tree[path] = replace(tree[path], digest=digest)
    for block in home.guest(vm, XATTRS).ok().text.split("\n\n"):
        head, *lines = block.strip().split("\n")
        path = _unescaped(head.removeprefix("# file: ")).lstrip("/")
        if path in tree:
            tree[path] = replace(tree[path], xattrs=tuple(sorted(tuple(line.split("=0x", 1)) for line in lines)))  # type: ignore[arg-type]
    return _comparable(tree)


def host_tree(root: Path) -> dict[str, Entry]:
    tree = {}
    kinds = {
        stat.S_IFREG: "f",
        stat.S_IFDIR: "d",
        stat.S_IFLNK: "l",
        stat.S_IFIFO: "p",
        stat.S_IFCHR: "c",
        stat.S_IFBLK: "b",
    }
    below = (Path(at, name) for at, directories, files in os.walk(root) for name in [*directories, *files])
    for path in [root, *below]:
        info = path.lstat()
        kind = kinds[stat.S_IFMT(info.st_mode)]
        tree["" if path == root else str(path.relative_to(root))] = Entry(
            kind,
            f"{stat.S_IMODE(info.st_mode):o}",
            info.st_uid,
            info.st_gid,
            info.st_size,
            info.st_mtime_ns // 1_000_000_000,
            info.st_nlink,
            str(path.readlink()) if kind == "l" else "",
            hashlib.sha256(path.read_bytes()).hexdigest() if kind == "f" else "",
            tuple(
                sorted(
                    (name, os.getxattr(path, name, follow_symlinks=False).hex())
                    for name in os.listxattr(path, follow_symlinks=False)
                )
            ),
        )
    return _comparable(tree)


def _comparable(tree: dict[str, Entry]) -> dict[str, Entry]:
    return {
        path: _without_size(entry, keep_mtime=path not in TOUCHED) if entry.kind == "d" else entry
        for path, entry in tree.items()
        if path.partition("/")[0] not in RUNTIME and path not in WRITTEN and not path.startswith(MODULES)
    }


def _without_size(directory: Entry, *, keep_mtime: bool) -> Entry:
    """Size and link count of a directory are the file system's: ext4 and the overlay count differently."""
    return replace(directory, size=0, links=0, mtime=directory.mtime if keep_mtime else 0)


def _unescaped(text: str) -> str:
    """Undo getfattr's octal escapes."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1").decode(errors="surrogateescape")
