"""The ``known_hosts`` line by which the user's own OpenSSH knows a guest. Pure."""

from __future__ import annotations

from banger.core.models import GuestAccess


def host_key_alias(vm_id: str) -> str:
    """The name a guest's host key is filed under; unlike its port, it never changes."""
    return f"banger-{vm_id}"


def known_hosts_line(access: GuestAccess) -> str:
    """One line with newline: the alias and the address as ssh writes it (``[HOST]:PORT`` unless the port is 22)."""
    address = access.host if access.port == 22 else f"[{access.host}]:{access.port}"
    kind, key = access.host_key.split()[:2]
    return f"{host_key_alias(access.vm_id)},{address} {kind} {key}\n"
