"""The file that a machine which begins with a saved one has as its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from banger.core.cancel import CancelToken
from banger.core.ports import SavedMachine, VmmConfig
from banger.posix.copying import copy_unsynced
from banger.vmm.qemu.arguments import Binary
from banger.vmm.qemu.state_lines import MemoryFile

_COPY = "memory"


@contextmanager
def loaded_memory(
    config: VmmConfig, saved: SavedMachine, binary: Binary, token: CancelToken | None
) -> Iterator[MemoryFile]:
    """The saved file itself, which is shared by all who begin with it, wherever it is safe from them.

    A QEMU in a jail that can only have the file with the right to write it, see :attr:`Binary.reads_memory_files`,
    would with that have the memory of others in its hands. It gets a copy, of what the guest has used, which is removed
    when the block ends, by when QEMU has it open.

    Raises:
        BangerError: ``exhausted`` without room for a copy, ``cancelled``.
    """
    if binary.reads_memory_files or not config.uid:
        yield MemoryFile(saved.memory, read_only=binary.reads_memory_files)
        return
    copy = config.vmm_log.with_name(_COPY)
    copy.unlink(missing_ok=True)
    try:
        copy_unsynced(saved.memory, copy, token or CancelToken())
        yield MemoryFile(copy)
    finally:
        copy.unlink(missing_ok=True)
