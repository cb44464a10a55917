"""What the user's own ssh is told about a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import GuestAccess
from banger.guest.known_hosts import known_hosts_line, ssh_config

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"


def access(port: int = 2201, key_path: str = "/data/ssh/id_ed25519") -> GuestAccess:
    return GuestAccess("0123456789ab", "127.0.0.1", port, f"{KEY} a comment", key_path)


def test_known_hosts_line_names_alias_and_bracketed_port() -> None:
    assert known_hosts_line(access()) == f"banger-0123456789ab,[127.0.0.1]:2201 {KEY}\n"


def test_known_hosts_line_of_port_22_has_no_brackets() -> None:
    assert known_hosts_line(access(22)) == f"banger-0123456789ab,127.0.0.1 {KEY}\n"


def test_ssh_config_is_strict_and_offers_one_key_only() -> None:
    lines = ssh_config("web", access(), Path("/run/known")).splitlines()
    settings = dict(line.split(maxsplit=1) for line in lines)
    assert lines[0] == "Host web"
    assert settings["StrictHostKeyChecking"] == "yes"
    assert settings["IdentitiesOnly"] == "yes"
    assert settings["IdentityAgent"] == "none"
    assert settings["Port"] == "2201"
    assert settings["User"] == "root"
    assert settings["UserKnownHostsFile"] == '"/run/known"'
    assert settings["GlobalKnownHostsFile"] == "/dev/null"


def test_ssh_config_path_with_what_ssh_would_expand_is_escaped() -> None:
    text = ssh_config("web", access(key_path='/a b/%h/"q"/\\n'), Path("/k"))
    assert '    IdentityFile "/a b/%%h/\\"q\\"/\\\\n"\n' in text


@pytest.mark.parametrize("path", ["/a/${HOME}", "/a\nProxyCommand evil"])
def test_ssh_config_path_that_cannot_be_expressed_is_refused(path: str) -> None:
    with pytest.raises(BangerError) as caught:
        ssh_config("web", access(key_path=path), Path("/k"))
    assert caught.value.kind is ErrorKind.INVALID
