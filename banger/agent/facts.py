"""Reading the lines of FACTS (docs/agent.md). Pure; the lines are a guest's, and any of them may be nonsense."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from banger.agent.lines import numbers, word
from banger.agent.wire import WireError
from banger.core.codec import MOST
from banger.core.guest_facts import CpuFacts, DiskFacts, GuestFacts, MemoryFacts, NetFacts

#: So much is read, and so many disks, interfaces and addresses are told of: a guest may make any number.
MOST_BYTES, _MOST_OBJECTS = 64 << 10, 64
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z", re.ASCII)
#: USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL: these two are not busy.
_IDLE = (3, 4)


def read_facts(text: bytes) -> GuestFacts:
    """What the lines say; unknown ones are ignored. Raises :class:`WireError` for one that makes no sense."""
    facts = GuestFacts()
    cpus = 0
    for line in text.decode("utf-8", "replace").split("\n"):
        name, *words = line.split(" ")
        if name == "cpus":
            cpus = numbers(words, 1)[0]
        elif name in _READERS:
            facts = _READERS[name](facts, words)
    return replace(facts, cpu=replace(facts.cpu, count=cpus))


def _times(facts: GuestFacts, words: Sequence[str]) -> GuestFacts:
    spent = numbers(words, 8)
    idle = sum(spent[place] for place in _IDLE)
    total = min(sum(spent), MOST)
    return replace(facts, cpu=CpuFacts(0, max(total - idle, 0), total))


def _load(facts: GuestFacts, words: Sequence[str]) -> GuestFacts:
    if len(words) < 3 or not all(_DECIMAL.match(word) for word in words[:3]):
        raise WireError("figures that are none")
    one, five, fifteen = (float(word) for word in words[:3])
    return replace(facts, load1=one, load5=five, load15=fifteen)


def _processes(facts: GuestFacts, words: Sequence[str]) -> GuestFacts:
    processes, running = numbers(words, 2)
    return replace(facts, processes=processes, running=running)


def _disk(facts: GuestFacts, words: Sequence[str]) -> GuestFacts:
    if len(facts.disks) >= _MOST_OBJECTS:
        return facts
    disk = DiskFacts(word(words), word(words[1:]), *numbers(words[2:], 5))
    return replace(facts, disks=(*facts.disks, disk))


def _net(facts: GuestFacts, words: Sequence[str]) -> GuestFacts:
    if len(facts.nets) >= _MOST_OBJECTS:
        return facts
    if len(words) < 6:
        raise WireError("figures that are none")
    received, sent = numbers(words[4:], 2)
    mac = "" if words[1] == "-" else word(words[1:])
    net = NetFacts(word(words), mac, numbers(words[2:], 1)[0], words[3] == "up", received, sent)
    return replace(facts, nets=(*facts.nets, net))


def _address(facts: GuestFacts, words: Sequence[str]) -> GuestFacts:
    """Of one of the interfaces, which are told of before."""
    name, address = word(words), word(words[1:])
    nets = tuple(
        replace(net, addresses=(*net.addresses, address))
        if net.name == name and len(net.addresses) < _MOST_OBJECTS
        else net
        for net in facts.nets
    )
    return replace(facts, nets=nets)


_Reader = Callable[[GuestFacts, Sequence[str]], GuestFacts]
_READERS: dict[str, _Reader] = {
    "clock": lambda facts, words: replace(facts, clock_ns=numbers(words, 1)[0]),
    "uptime": lambda facts, words: replace(facts, uptime_ms=numbers(words, 1)[0]),
    "kernel": lambda facts, words: replace(facts, kernel=word(words)),
    "hostname": lambda facts, words: replace(facts, hostname=word(words)),
    "machine-id": lambda facts, words: replace(facts, machine_id=word(words)),
    "boot-id": lambda facts, words: replace(facts, boot_id=word(words)),
    "load": _load,
    "cpu": _times,
    "memory": lambda facts, words: replace(facts, memory=MemoryFacts(*numbers(words, 6))),
    "processes": _processes,
    "disk": _disk,
    "net": _net,
    "address": _address,
}
