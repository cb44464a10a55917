"""How to reach a running guest: derived from its row and its files, so that it survives a daemon restart."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from banger.core.models import GuestAccess, Vm
from banger.guest.hostkey import public_key
from banger.layout import Layout


def guest_access(layout: Layout, vm: Vm) -> GuestAccess:
    """Access to banger's ssh server in the guest of ``vm``, which must be running."""
    return GuestAccess(
        vm_id=vm.id,
        host=vm.address or "127.0.0.1",
        port=vm.ssh_port,
        host_key=_host_key(layout.vm_dir(vm.id) / "host_key.seed"),
        private_key_path=str(layout.ssh_key),
    )


@lru_cache(maxsize=4096)
def _host_key(seed_file: Path) -> str:
    """The public host key; a seed never changes during a VM's life, and its path holds the VM's id."""
    return public_key(seed_file.read_bytes())
