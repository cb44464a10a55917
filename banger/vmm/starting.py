"""What the start of every VMM has in common: the process exists, is written down, and runs its machine or is ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from banger.core.cancel import Deadline
from banger.core.errors import BangerError
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import VmmConfig
from banger.vmm import identity

_KILL_TIMEOUT_S = 10.0
_EXECUTION_TIMEOUT_S, _EXECUTION_POLL_S = 5.0, 0.001


class NotRunningError(Exception):
    """A VMM does not get its machine running; ``timed_out``: as far as anybody waited."""

    def __init__(self, words: str, *, timed_out: bool = False) -> None:
        super().__init__(words)
        self.timed_out = timed_out


class Explanation(Protocol):
    """Reads a VMM's own words."""

    def __call__(self, config: VmmConfig, log: str, error: Exception, *, timed_out: bool) -> BangerError:
        """The error for a machine that did not come up; ``log`` is what its VMM printed during this start."""
        ...


def start(
    config: VmmConfig,
    *,
    spawn: Callable[[], int],
    wait_running: Callable[[ProcessIdentity], None],
    explain: Explanation,
    on_spawn: Callable[[ProcessIdentity], None],
) -> ProcessIdentity:
    """Start a VMM and return once its machine runs.

    Args:
        config: the machine.
        spawn: starts the process, and gives its id; 0 if it has ended already.
        wait_running: waits; raises :class:`NotRunningError`.
        explain: makes the error of what the VMM said.
        on_spawn: called as soon as the process exists.

    Raises:
        BangerError: what ``explain`` makes; no process is left then.
    """
    log_start = _size(config.vmm_log)
    process = spawn()
    try:
        spawned = identity.identify(process, vmm_marker(config.vm_id))
    except ProcessLookupError as error:  # somebody else has reaped it
        raise explain(config, _text_since(config.vmm_log, log_start), error, timed_out=False) from error
    try:
        on_spawn(spawned)
        _wait_executed(spawned)
        wait_running(spawned)
    except NotRunningError as error:
        _end(spawned)
        said = _text_since(config.vmm_log, log_start)
        raise explain(config, said, error, timed_out=error.timed_out) from error
    except BaseException:
        _end(spawned)
        raise
    return spawned


def _wait_executed(spawned: ProcessIdentity) -> None:
    """Until it bears its marker: some versions of ``subprocess`` return before the child has become its program."""
    deadline = Deadline.after(_EXECUTION_TIMEOUT_S)
    while identity.is_being_executed(spawned) and not deadline.expired:
        time.sleep(_EXECUTION_POLL_S)


def _end(spawned: ProcessIdentity) -> None:
    identity.kill(spawned)
    identity.wait_gone(spawned, _KILL_TIMEOUT_S)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _text_since(path: Path, offset: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
