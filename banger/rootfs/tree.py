"""Merging layers into one tree in memory, without touching any path of the host.

A layer's whiteouts are applied before its entries, wherever they stand in the archive: that way they can only ever
remove what lower layers brought.
"""

from __future__ import annotations

from banger.rootfs.layer import HardLink, LayerChanges
from banger.rootfs.limits import FOLLOWED_LINKS, NAME_BYTES, Budget
from banger.rootfs.nodes import Directory, Node, Symlink
from banger.rootfs.refusals import refused, shown

#: What a directory that an archive implies but never mentions looks like.
_IMPLIED_MODE = 0o755


class Tree:
    """The root directory and the rules for changing what is below it."""

    def __init__(self, budget: Budget) -> None:
        self.root = Directory(_IMPLIED_MODE, 0, 0, 0)
        self._budget = budget
        self._directories: dict[bytes, Directory] = {}

    def apply(self, changes: LayerChanges) -> None:
        """Put one layer on top.

        Raises:
            BangerError: ``invalid`` for a layer that contradicts the tree; the tree is then useless.
        """
        # A link may name a file of a lower layer that this very layer hides: it keeps the file, under its own name.
        linked = [content.target for _, content in changes.entries if isinstance(content, HardLink)]
        lower = {target: self._find(target) for target in linked} if changes.whiteouts or changes.opaque else {}
        for path in changes.opaque:
            directory = self._walk(path, create=False)
            if directory is not None:
                directory.entries.clear()
        for path in changes.whiteouts:
            parent, _, name = path.rpartition(b"/")
            directory = self._walk(parent, create=False)
            if directory is not None:
                directory.entries.pop(name, None)
        self._directories.clear()
        for path, content in changes.entries:
            if isinstance(content, HardLink):
                self._place(path, self._linked(path, content.target, lower))
            else:
                self._place(path, content)

    def _linked(self, path: bytes, target: bytes, lower: dict[bytes, Node | None]) -> Node:
        node = self._find(target) or lower.get(target)
        if node is None:
            raise refused(f"{shown(path)} is a hard link to {shown(target)}, which does not exist")
        if isinstance(node, Directory):
            raise refused(f"{shown(path)} is a hard link to {shown(target)}, which is a directory")
        return node

    def _place(self, path: bytes, node: Node) -> None:
        """Put ``node`` at ``path``; the last one there wins, except that directories keep their content."""
        if not path:
            if not isinstance(node, Directory):
                raise refused("the archive replaces the root directory by something else")
            _adopt(self.root, node)
            return
        parent, _, name = path.rpartition(b"/")
        directory = self._directories.get(parent)
        if directory is None:
            directory = self._walk(parent, create=True)
            assert directory is not None
            self._directories[parent] = directory
        old = directory.entries.get(name)
        if isinstance(old, Directory) and isinstance(node, Directory):
            _adopt(old, node)
            return
        if isinstance(old, Directory | Symlink) and old is not node:
            self._directories.clear()  # paths that led through it now lead elsewhere
        if isinstance(node, Directory):
            node.parent = directory
        directory.entries[name] = node

    def _find(self, path: bytes) -> Node | None:
        """What is at ``path``; a symbolic link at its end is not followed."""
        parent, _, name = path.rpartition(b"/")
        directory = self._walk(parent, create=False)
        if directory is None:
            return None
        return directory.entries.get(name) if name else self.root

    def _walk(self, path: bytes, *, create: bool) -> Directory | None:
        """The directory at ``path``, following symbolic links inside the tree as a kernel would below a chroot.

        With ``create``, missing directories are made and anything else in the way is an error; else ``None``.
        """
        here = self.root
        todo = path.split(b"/")[::-1]
        self._budget.spend_steps(len(todo))
        followed = 0
        while todo:
            name = todo.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = here.parent
                continue
            child = here.entries.get(name)
            if isinstance(child, Directory):
                here = child
            elif isinstance(child, Symlink):
                followed += 1
                if followed > FOLLOWED_LINKS:
                    raise refused(f"the path {shown(path)} leads through too many symbolic links")
                parts = child.target.split(b"/")
                self._budget.spend_steps(len(parts))
                todo.extend(reversed(parts))
                if not parts[0]:
                    here = self.root
            elif not create:
                return None
            elif child is None:
                here = self._imply(here, name)
            else:
                raise refused(f"the path {shown(path)} leads through {shown(name)}, which is not a directory")
        return here

    def _imply(self, parent: Directory, name: bytes) -> Directory:
        if len(name) > NAME_BYTES:
            raise refused(f"the name {shown(name)} is longer than {NAME_BYTES} bytes")
        self._budget.spend_entry(len(name))
        child = Directory(_IMPLIED_MODE, 0, 0, 0)
        child.parent = parent
        parent.entries[name] = child
        return child


def _adopt(directory: Directory, newer: Directory) -> None:
    """Give ``directory`` the attributes of ``newer``, which says the same path again."""
    directory.mode, directory.uid, directory.gid = newer.mode, newer.uid, newer.gid
    directory.mtime_ns, directory.xattrs = newer.mtime_ns, newer.xattrs
