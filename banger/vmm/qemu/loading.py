"""A machine that begins with what another one was.

It maps the saved memory privately: pages are read when the guest needs them, those that it never writes are shared by
all who load it, and the file does not change (QEMU 7.2 opens it for writing all the same). Measured on QEMU 7.2,
emulated: a machine stands with its state 15 ms after its monitor answers, whatever the size of its memory.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.ports import SavedMachine, VmmConfig
from banger.vmm.log_files import log_tail
from banger.vmm.qemu import failures, migration
from banger.vmm.qemu.qmp import QmpError, QmpSession
from banger.vmm.qemu.saving import FORM
from banger.vmm.qemu.state_lines import MemoryFile, form_of, loading_line

_FEED_TIMEOUT_S = 30.0


def line(config: VmmConfig, saved: SavedMachine, argv: Sequence[str], memory: MemoryFile) -> list[str]:
    """The command line of the machine that ``argv`` would boot.

    Raises:
        BangerError: ``invalid`` if the saved machine was another one.
    """
    then, now = saved.details.get(FORM, ""), form_of(argv)
    if then != now:
        raise BangerError(
            ErrorKind.INVALID,
            f'cannot start VM "{config.name}" from its saved state: it was another machine',
            subject=config.name,
            cause=_difference(then, now),
        )
    return loading_line(argv, memory)


def load(saved: SavedMachine, vmm_log: Path, monitor: QmpSession) -> None:
    """Have a machine that waits take over its state, and stand still. It announces itself to no network.

    Its disks are taken at the end. What QEMU cannot take then it only complains of, and stands still with all others.
    """
    said = vmm_log.stat().st_size
    migration.configure(monitor, x_ignore_shared=True)
    monitor.execute("migrate-set-parameters", {"announce-rounds": 0})
    data = saved.devices.read_bytes()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            migration.receive(monitor, theirs)
        ours.settimeout(_FEED_TIMEOUT_S)
        with suppress(OSError):  # it gave up, and says why when it is asked
            ours.sendall(data)
    migration.wait_received(monitor)
    if failures.tells_of_disk_in_use(log_tail(vmm_log, said)):
        raise QmpError("it cannot have its disks")


def _difference(then: str, now: str) -> str:
    """The first option in which two forms differ."""
    pairs = zip((*then.split(" -"), ""), (*now.split(" -"), ""), strict=False)
    was, would_be = next((one for one in pairs if one[0] != one[1]), ("", ""))
    return f'saved with "{was}", here it would be "{would_be}"'
