"""Work in a child of the test's own process, which may die in it: starting Python anew takes longer than most tests."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

#: Seconds that a child has.
_PATIENCE_S = 60


def forked(work: Callable[[], object]) -> int:
    """Do ``work`` in a child, without what other threads of this process do.

    Returns:
        0; 1 after an exception, which is printed; or -N if signal N ended the child.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(_PATIENCE_S)
            work()
            code = 0
        except BaseException:  # noqa: BLE001  # the child of a fork must not unwind into its parent's frames
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
