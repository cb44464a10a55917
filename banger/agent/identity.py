"""Who a guest is: requests that make it somebody, and reading the lines of WHOAMI (docs/agent.md).

Pure. The lines are a guest's, and any of them may be nonsense.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum

from banger.agent.lines import numbers, word
from banger.agent.messages import Op, Request, string
from banger.agent.wire import WireError
from banger.core.guest_identity import SeenIdentity
from banger.core.ports import GuestNetwork

#: Of what there may be several, so many are told of: a guest may make any number.
_MOST = 64
#: Those that sshd has had (sshd_config(5), ``HostKey``); files of other names are their owner's.
_SSHD_KEY = re.compile(r"ssh_host_(rsa|dsa|ecdsa|ed25519)_key\Z", re.ASCII)


class Identity(IntEnum):
    """What of a machine's identity to set. ``SEEDS`` has no value: they are removed."""

    HOSTNAME = 1
    MACHINE_ID = 2
    BOOT_ID = 3
    HOST_KEY = 4
    VM_ID = 5
    SEEDS = 6


WHOAMI = Request(Op.WHOAMI)


def give(what: Identity, value: str | bytes) -> Request:
    """Set a name, an id or a key."""
    return Request(Op.IDENTITY, struct.pack("<H", what) + string(value))


def give_network(card: GuestNetwork, mac: str) -> Request:
    """Give the one network card a MAC, addresses and routes."""
    texts = (mac, card.address, card.gateway, card.address6, card.gateway6, card.nameserver)
    return Request(Op.NETWORK, b"".join(map(string, texts)) + struct.pack("<H", card.mtu))


def read_identity(text: bytes) -> SeenIdentity:
    """What the lines say; unknown ones are ignored. Raises :class:`WireError` for one that makes no sense."""
    seen = SeenIdentity()
    for line in text.decode("utf-8", "replace").split("\n"):
        name, *words = line.split(" ")
        if name in _READERS:
            seen = _READERS[name](seen, words)
    return seen


def _card(seen: SeenIdentity, words: Sequence[str]) -> SeenIdentity:
    if len(words) < 4:
        raise WireError("a network card that is none")
    return replace(seen, card=word(words), mac=word(words[1:]), is_up=words[2] == "up", has_ipv6=words[3] == "ipv6")


def _sshd_key(seen: SeenIdentity, words: Sequence[str]) -> SeenIdentity:
    name, key = word(words), " ".join(word([part]) for part in words[1:3])
    return replace(seen, sshd_keys={**seen.sshd_keys, name: key}) if _SSHD_KEY.match(name) else seen


def _seed(seen: SeenIdentity, words: Sequence[str]) -> SeenIdentity:
    more = {word(words): word(words[1:])} if len(seen.seeds) < _MOST else {}
    return replace(seen, seeds={**seen.seeds, **more})


def _added(have: tuple[str, ...], words: Sequence[str]) -> tuple[str, ...]:
    return have if len(have) >= _MOST else (*have, word(words))


_Reader = Callable[[SeenIdentity, Sequence[str]], SeenIdentity]
_READERS: dict[str, _Reader] = {
    "clock": lambda seen, words: replace(seen, clock_ns=numbers(words, 1)[0]),
    "random": lambda seen, words: replace(seen, random=_added(seen.random, words)),
    "hostname": lambda seen, words: replace(seen, hostname=word(words)),
    "hostname-file": lambda seen, words: replace(seen, hostname_file=word(words)),
    "machine-id": lambda seen, words: replace(seen, machine_id=word(words)),
    "boot-id": lambda seen, words: replace(seen, boot_id=word(words)),
    "vm-id": lambda seen, words: replace(seen, vm_id=word(words)),
    "host-key": lambda seen, words: replace(seen, host_key=word(words)),
    "ssh-server": lambda seen, words: replace(seen, has_ssh_server=words[:1] == ["running"]),
    "systemd": lambda seen, words: replace(seen, has_systemd=words[:1] == ["running"]),
    "sshd-key": _sshd_key,
    "seed": _seed,
    "card": _card,
    "address": lambda seen, words: replace(seen, addresses=_added(seen.addresses, words[1:])),
    "gateway": lambda seen, words: replace(seen, gateways=_added(seen.gateways, words)),
    "nameserver": lambda seen, words: replace(seen, nameservers=_added(seen.nameservers, words)),
}
