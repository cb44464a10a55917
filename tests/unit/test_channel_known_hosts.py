"""What the user's own ssh is told about a guest."""

from __future__ import annotations

from banger.core.models import GuestAccess
from banger.guest.known_hosts import known_hosts_line

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"


def access(port: int = 2201) -> GuestAccess:
    return GuestAccess("0123456789ab", "127.0.0.1", port, f"{KEY} a comment", "/data/ssh/id_ed25519")


def test_known_hosts_line_names_alias_and_bracketed_port() -> None:
    assert known_hosts_line(access()) == f"banger-0123456789ab,[127.0.0.1]:2201 {KEY}\n"


def test_known_hosts_line_of_port_22_has_no_brackets() -> None:
    assert known_hosts_line(access(22)) == f"banger-0123456789ab,127.0.0.1 {KEY}\n"
