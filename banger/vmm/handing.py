"""Files that a VMM in a jail opens by itself, as its own user: the right to them, and the errors without it.

They are in directories that only the daemon's user can enter: what a mode or an owner allows there, nobody can use who
is not shown the file.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind

#: What is said before there is a VMM (``banger/jail/``): a thing that it was to inherit cannot be had, or its jail.
NOT_HANDED = re.compile(
    r"^banger-jail: cannot (?:open|listen at|find the tap|attach to the tap|lend the tap|keep) .*$", re.MULTILINE
)
NO_JAIL = re.compile(r"^banger-jail: .*$", re.MULTILINE)
#: A file is lent to one VMM at a time, for as long as that takes to open it.
_LENDING = threading.Lock()


def show(path: Path) -> None:
    """Let a file be read that VMs share, and that is no secret. Raises ``OSError``."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & stat.S_IROTH:
        path.chmod(mode | stat.S_IROTH)


def give(path: Path, uid: int) -> None:
    """Give a file to the one VMM that uses it. Raises ``OSError``."""
    os.chown(path, uid, uid)


@contextmanager
def lent(paths: Sequence[Path], uid: int) -> Iterator[None]:
    """For the block, one VMM may open secret files of ours for reading, which others will be lent after it.

    They belong to its group for so long, and to us as ever: it can change nothing about them. Raises ``OSError``.
    """
    with _LENDING:
        try:
            for path in paths:
                os.chown(path, os.geteuid(), uid)
                path.chmod(0o440)
            yield
        finally:
            for path in paths:
                path.chmod(0o400)
                os.chown(path, os.geteuid(), os.getegid())


def no_jail(name: str, cause: str) -> BangerError:
    """The error for a machine whose VMM cannot be confined."""
    return BangerError(
        ErrorKind.UNAVAILABLE, f'cannot start VM "{name}": its VMM cannot be put into a jail', subject=name,
        cause=cause, hint="banger doctor; to do without: set vmm.jail to off",
    )  # fmt: skip


def not_handed(name: str, cause: str) -> BangerError:
    """The error for a machine that lacks a thing that it is made of."""
    return BangerError(
        ErrorKind.UNAVAILABLE, f'cannot start VM "{name}": something that it needs cannot be had', subject=name,
        cause=cause, hint=f"banger vm show {name}",
    )  # fmt: skip
