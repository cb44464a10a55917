"""What the user's own OpenSSH needs to reach a guest: a ``known_hosts`` line and a piece of ``ssh_config``. Pure."""

from __future__ import annotations

from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import GuestAccess


def host_key_alias(vm_id: str) -> str:
    """The name a guest's host key is filed under; unlike its port, it never changes."""
    return f"banger-{vm_id}"


def known_hosts_line(access: GuestAccess) -> str:
    """One line with newline: the alias and the address as ssh writes it (``[HOST]:PORT`` unless the port is 22)."""
    address = access.host if access.port == 22 else f"[{access.host}]:{access.port}"
    kind, key = access.host_key.split()[:2]
    return f"{host_key_alias(access.vm_id)},{address} {kind} {key}\n"


def ssh_config(alias: str, access: GuestAccess, known_hosts_path: Path) -> str:
    """A ``Host`` section for ``ssh -F FILE ALIAS``: no other key is offered, no other host key is accepted.

    Raises:
        BangerError: ``invalid`` for a path that ``ssh_config`` cannot express.
    """
    settings = {
        "HostName": access.host,
        "Port": str(access.port),
        "User": access.user,
        "IdentityFile": _quoted(access.private_key_path),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "HostKeyAlias": host_key_alias(access.vm_id),
        "UserKnownHostsFile": _quoted(str(known_hosts_path)),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "PreferredAuthentications": "publickey",
    }
    return f"Host {alias}\n" + "".join(f"    {key} {value}\n" for key, value in settings.items())


def _quoted(path: str) -> str:
    """A path as one argument: ``%`` starts a token and ``${`` a variable (which has no escape), see ssh_config(5)."""
    if "${" in path or not path.isprintable():
        raise BangerError(ErrorKind.INVALID, f'ssh cannot be given the path "{path}"', subject=path)
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
