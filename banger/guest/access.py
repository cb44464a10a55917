"""Access to a guest by ssh: user, keys and host key, derived from files, so that it survives a daemon restart."""

from __future__ import annotations

from functools import lru_cache

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import GuestAccess, Vm
from banger.guest.hostkey import public_key
from banger.layout import Layout


def guest_access(layout: Layout, vm: Vm) -> GuestAccess:
    """Access to banger's ssh server in the guest of ``vm``, which must be running.

    Raises:
        BangerError: ``invalid`` if what its host key was made from is lost; the next start makes another one.
    """
    try:
        host_key = _host_key((layout.vm_dir(vm.id) / "host_key.seed").read_bytes())
    except (OSError, ValueError) as error:
        message = f'nobody knows the ssh host key of VM "{vm.name}" any more'
        hint = f"banger vm restart {vm.name}"
        raise BangerError(ErrorKind.INVALID, message, subject=vm.name, cause=str(error), hint=hint) from error
    return GuestAccess(vm.id, host_key, private_key_path=str(layout.ssh_key))


@lru_cache(maxsize=4096)
def _host_key(seed: bytes) -> str:
    return public_key(seed)
