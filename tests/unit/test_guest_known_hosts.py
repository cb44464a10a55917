"""What the user's own ssh is told about a guest."""

from __future__ import annotations

from banger.core.models import GuestAccess
from banger.guest.known_hosts import known_hosts_line

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"


def test_known_hosts_line_names_the_alias_and_no_comment() -> None:
    access = GuestAccess("0123456789ab", f"{KEY} a comment", "/data/ssh/id_ed25519")
    assert known_hosts_line(access) == f"banger-0123456789ab {KEY}\n"
