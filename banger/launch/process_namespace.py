"""Starting a process as process 1 of a PID namespace (pid_namespaces(7)), and as a child of ours all the same.

Who makes such a namespace is not in it; its next children are. That holds for one thread alone, so the one in which it
is made starts one process and ends. A program that makes the namespace itself has to fork, and nobody is told how the
process ended that it leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from banger.core.errors import BangerError, ErrorKind
from banger.jail import kernel

T = TypeVar("T")


def in_process_namespace(start: Callable[[], T]) -> T:
    """Call ``start``, whose first child is process 1 of a namespace of its own.

    Raises:
        BangerError: ``unavailable`` where there may be none; and what ``start`` raises.
    """

    def apart() -> T:
        try:
            kernel.leave_namespaces(kernel.NEW_PROCESSES)
        except OSError as error:
            raise BangerError(
                ErrorKind.UNAVAILABLE, "cannot make a PID namespace for a VMM", cause=error.strerror or str(error),
                hint="banger doctor; to do without: set vmm.jail to off",
            ) from error  # fmt: skip
        return start()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-namespace") as thread:
        return thread.submit(apart).result()
