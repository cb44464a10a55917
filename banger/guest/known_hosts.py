"""The ``known_hosts`` line by which the user's own OpenSSH knows a guest. Pure."""

from __future__ import annotations

from banger.core.models import GuestAccess


def host_key_alias(vm_id: str) -> str:
    """The name that a guest's host key is filed under (ssh_config(5), ``HostKeyAlias``); it never changes."""
    return f"banger-{vm_id}"


def known_hosts_line(access: GuestAccess) -> str:
    """One line, with its newline."""
    kind, key = access.host_key.split()[:2]
    return f"{host_key_alias(access.vm_id)} {kind} {key}\n"
