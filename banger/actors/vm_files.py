"""The files of one VM, and reading them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from banger.layout import Layout
from banger.posix.files import sync_path

#: The tail of a console that is looked at for the end of a machine.
CONSOLE_TAIL_BYTES = 16 * 1024
_SEED_BYTES = 32


class VmFiles:
    """Paths of one VM under ``vms/ID`` and the few files in it that its owner reads and writes itself."""

    def __init__(self, layout: Layout, vm_id: str) -> None:
        self.directory = layout.vm_dir(vm_id)
        self.run_dir = layout.vm_run_dir(vm_id)

    @property
    def console_log(self) -> Path:
        """What the guest wrote to its serial console."""
        return self.directory / "console.log"

    @property
    def vmm_log(self) -> Path:
        """What the VMM itself wrote."""
        return self.directory / "vmm.log"

    @property
    def initrd(self) -> Path:
        """Toolbox and per-VM archive; holds the guest's host key, so it is private and made anew at each start."""
        return self.directory / "initrd.img"

    @property
    def host_key_seed_file(self) -> Path:
        """The 32 bytes that the guest's ssh host key is made of."""
        return self.directory / "host_key.seed"

    def make(self) -> None:
        """Create the directory and the host key's seed, both to last. Idempotent."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.host_key_seed()
        sync_path(self.directory.parent)

    def host_key_seed(self) -> bytes:
        """The host key's seed, made if it is not there, or was lost or damaged on disk: any other serves as well."""
        with suppress(FileNotFoundError):
            if len(seed := self.host_key_seed_file.read_bytes()) == _SEED_BYTES:
                return seed
        seed, fresh = secrets.token_bytes(_SEED_BYTES), self.host_key_seed_file.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(seed)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.host_key_seed_file)
        sync_path(self.directory)
        return seed

    def console_size(self) -> int:
        """How long the console log is now: where the next boot's part begins."""
        try:
            return self.console_log.stat().st_size
        except FileNotFoundError:
            return 0

    def vmm_log_size(self) -> int:
        """How long the VMM's log is now: where the next start's part begins."""
        try:
            return self.vmm_log.stat().st_size
        except FileNotFoundError:
            return 0

    def console_from(self, offset: int, limit: int = 1 << 20) -> str:
        """The console from a byte offset on, at most ``limit`` bytes of it."""
        return _text(self.console_log, offset, limit)

    def vmm_log_from(self, offset: int) -> str:
        """The VMM's log from a byte offset on, or its end if that is long."""
        return _text(self.vmm_log, max(offset, self.vmm_log_size() - CONSOLE_TAIL_BYTES), CONSOLE_TAIL_BYTES)

    def console_tail(self, since: int = 0) -> str:
        """The end of the console from the byte offset ``since`` on, or of all of it if it was cut short meanwhile."""
        size = self.console_size()
        return self.console_from(max(since if since <= size else 0, size - CONSOLE_TAIL_BYTES))


def _text(path: Path, offset: int, limit: int) -> str:
    """From an offset on; from the begin if the log was cut since, and is shorter than that."""
    try:
        with path.open("rb") as file:
            file.seek(offset if offset <= os.fstat(file.fileno()).st_size else 0)
            return file.read(limit).decode(errors="replace")
    except FileNotFoundError:
        return ""
