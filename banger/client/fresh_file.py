"""A file that gets its name only when it is complete. Until then it has none, or a temporary one."""

from __future__ import annotations

import os
from contextlib import suppress


class FreshFile:
    """As a context manager: a file for writing, which is gone at the end unless :meth:`take_place` was called.

    Where the file system can make files without a name, that holds whatever ends the process.
    """

    def __init__(self, parent: int) -> None:
        """Make it in a directory, given by its descriptor."""
        self._parent = parent
        self._temporary = ""
        self.descriptor = _nameless(parent)
        if self.descriptor < 0:
            self._temporary = _unused_name()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.descriptor = os.open(self._temporary, flags, 0o600, dir_fd=parent)

    def take_place(self, name: str) -> None:
        """Get a name, in one step, and take the place of a file or a link that has it."""
        if not self._temporary:
            with suppress(FileExistsError):
                self._link(name)
                return
            self._temporary = _unused_name()
            self._link(self._temporary)
        os.rename(self._temporary, name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        self._temporary = ""

    def _link(self, name: str) -> None:
        os.link(f"/proc/self/fd/{self.descriptor}", name, dst_dir_fd=self._parent, follow_symlinks=True)

    def __enter__(self) -> FreshFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        if self._temporary:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._parent)


def _nameless(parent: int) -> int:
    """A descriptor of a file without a name that can get one later (open(2), ``O_TMPFILE``); -1 if there is none.

    NFS, FUSE and some overlays have no such thing. What hinders every file, the next attempt will tell.
    """
    try:
        descriptor = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=parent)
    except OSError:
        return -1
    if os.path.exists(f"/proc/self/fd/{descriptor}"):  # noqa: PTH110  # no path of the user's
        return descriptor
    os.close(descriptor)
    return -1


def _unused_name() -> str:
    return f".banger-{os.urandom(8).hex()}.part"  # another copy may go on beside this one
