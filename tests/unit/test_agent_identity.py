"""Who a guest says that it is: read as it is meant, and harmless whatever it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from banger.agent.identity import give_network, read_identity
from banger.agent.wire import WireError
from banger.core.codec import MOST, to_plain
from banger.core.guest_identity import SeenIdentity
from banger.core.plain_text import printable
from banger.core.ports import GuestNetwork
from tests.support.agent_lines import lines_like

TEXT = b"""clock 1700000000000000001
random 11111111-2222-4333-8444-555555555555
random 21111111-2222-4333-8444-555555555555
hostname web
hostname-file web.lab
machine-id 0123456789abcdef0123456789abcdef
boot-id 11111111-2222-3333-4444-555555555555
vm-id 0123456789ab
host-key 00ff
ssh-server running
systemd running
sshd-key ssh_host_ed25519_key ssh-ed25519 AAAA
sshd-key ssh_host_dsa_key
sshd-key ssh_host_mine_key ssh-rsa AAAA
seed /var/lib/systemd/random-seed 12:1.5
card eth0 02:00:00:00:00:07 up ipv6
address eth0 10.1.0.7/24
address eth0 fe80::7/64
gateway 10.1.0.1
nameserver 10.1.0.2
of-a-later-version x y z
"""


def test_identity_is_read_as_it_is_written() -> None:
    assert read_identity(TEXT) == SeenIdentity(
        clock_ns=1700000000000000001,
        random=("11111111-2222-4333-8444-555555555555", "21111111-2222-4333-8444-555555555555"),
        hostname="web",
        hostname_file="web.lab",
        machine_id="0123456789abcdef0123456789abcdef",
        boot_id="11111111-2222-3333-4444-555555555555",
        vm_id="0123456789ab",
        host_key="00ff",
        has_ssh_server=True,
        sshd_keys={"ssh_host_ed25519_key": "ssh-ed25519 AAAA", "ssh_host_dsa_key": ""},
        has_systemd=True,
        seeds={"/var/lib/systemd/random-seed": "12:1.5"},
        card="eth0",
        mac="02:00:00:00:00:07",
        is_up=True,
        addresses=("10.1.0.7/24", "fe80::7/64"),
        gateways=("10.1.0.1",),
        nameservers=("10.1.0.2",),
        has_ipv6=True,
    )


def test_guest_that_has_nothing_is_nobody() -> None:
    assert read_identity(b"") == SeenIdentity()
    seen = read_identity(b"card eth0 02:00:00:00:00:07 down -\n")
    assert (seen.is_up, seen.has_ipv6) == (False, False)


@pytest.mark.parametrize("line", ["clock", "clock -1", "clock x", "card", "card eth0 02:00:00:00:00:07 up"])
def test_identity_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(WireError):
        read_identity(line.encode())


def test_names_cannot_steer_a_terminal_and_what_there_is_of_them_is_bounded() -> None:
    seen = read_identity(
        b"hostname \x1b[31mred\\033[0m\nclock 99999999999999999999\n"
        + b"".join(b"seed /a\\012b%d 1\n" % n for n in range(500))
    )
    assert printable(seen.hostname) == seen.hostname
    assert "\x1b" not in seen.hostname
    assert seen.clock_ns == MOST
    assert len(seen.seeds) == 64
    assert all("\n" not in path for path in seen.seeds)


def test_network_is_sent_as_the_contract_says() -> None:
    request = give_network(GuestNetwork("10.1.0.7/24", "10.1.0.1", "", "fd00::7/64", "", 1400), "02:00:00:00:00:07")
    payload = b"".join(frame.payload for frame in request.frames(1, 0))
    texts = (b"02:00:00:00:00:07", b"10.1.0.7/24", b"10.1.0.1", b"fd00::7/64", b"", b"")
    assert payload[:8] == b"\x14\0\0\0\0\0\0\0"
    assert payload[8:] == b"".join(len(text).to_bytes(4, "little") + text + b"\0" for text in texts) + b"\x78\x05"


@given(lines_like(TEXT))
def test_whatever_a_guest_says_is_either_an_identity_or_nonsense(text: bytes) -> None:
    try:
        seen = read_identity(text)
    except WireError:
        return
    json.dumps(to_plain(seen), allow_nan=False)
