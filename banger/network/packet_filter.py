"""The packet filter of one installation in the kernel: made whole, changed by one guest, kept as it should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loguru import logger

from banger.core.errors import BangerError
from banger.network import increments, nft
from banger.network.anti_spoofing import FRAMES
from banger.network.guests import Guest
from banger.network.names import table_name
from banger.network.rules import EGRESS, RESOLVING, Ruleset

#: A block of a table as nft lists it, and what is in it.
_BLOCK = re.compile(r"^\t(\w+ \w+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
#: A VM's chain, and whose any block is.
_CHAIN, _OWNER = re.compile(r"\bvm_([0-9a-f]{12})\b"), re.compile(r"_([0-9a-f]{12})\Z")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_VERDICTS = (("bridge", f"map {FRAMES}"), ("inet", f"map {EGRESS}4"), ("inet", f"map {EGRESS}6"))
_ASKING = ("inet", f"set {RESOLVING}")

#: Family and head of a block to its lines.
Blocks = Mapping[tuple[str, str], str]


class PacketFilter:
    """Not for several threads at a time."""

    def __init__(
        self, installation_id: str, run: Callable[..., Any] = lambda work, *arguments: work(*arguments)
    ) -> None:
        """Nothing is known of the kernel yet.

        Args:
            installation_id: names the tables.
            run: calls a function with its arguments where the tables are.
        """
        self._table = table_name(installation_id)
        self._run = run
        self._shared = ""  # the rules without any guest; empty: it is not known what is there
        self._guests: dict[str, Guest] = {}
        self._blocks: Blocks | None = None  # as they were when last looked at
        self._changed: set[str] = set()  # VMs whose blocks were made or removed since then

    def apply(self, rules: Ruleset) -> None:
        """Have exactly these rules, keeping what the resolver allowed. Takes long with many guests."""
        self.forget()
        held = self._run(nft.elements, self._table, [guest.vm_id for guest in rules.guests if guest.egress.names])
        self._run(nft.apply, replace(rules, elements=held).render())
        self._shared, self._guests = rules.render_shared(), {guest.vm_id: guest for guest in rules.guests}

    def admit(self, rules: Ruleset, guest: Guest) -> None:
        """Have ``rules``, which may differ from what is there by this one guest."""
        before = self._guests.get(guest.vm_id)
        if before not in (None, guest) or not self._change(rules, guest, increments.added):
            self.apply(rules)

    def dismiss(self, rules: Ruleset, guest: Guest) -> None:
        """Have ``rules``, of which this guest is no more."""
        if self._guests.get(guest.vm_id) != guest or not self._change(rules, guest, increments.removed):
            self.apply(rules)

    def restore(self, rules: Ruleset) -> None:
        """Apply ``rules`` unless the kernel has them: a daemon has just begun, or somebody has meddled."""
        known = self._shared == rules.render_shared() and self._guests == {one.vm_id: one for one in rules.guests}
        if not known or not self._is_intact(rules):
            self.apply(rules)
            self._is_intact(rules)

    def forget(self) -> None:
        """The tables are gone, or about to be made anew."""
        self._shared, self._guests, self._blocks, self._changed = "", {}, None, set()

    def _change(self, rules: Ruleset, guest: Guest, change: Callable[[Ruleset, Guest], str]) -> bool:
        """Add or remove one guest in no more time than one takes; False if all of it has to be made anew."""
        others = {one.vm_id: one for one in rules.guests if one is not guest and one.vm_id != guest.vm_id}
        known = {vm_id: one for vm_id, one in self._guests.items() if vm_id != guest.vm_id}
        if known != others or self._shared != rules.render_shared() or not increments.is_separable(guest):
            return False
        try:
            self._run(nft.apply, change(rules, guest))
        except BangerError as error:
            logger.warning("the packet filter is made anew: {}", error)
            return False
        self._changed.add(guest.vm_id)
        self._guests = {one.vm_id: one for one in rules.guests}
        return True

    def _is_intact(self, rules: Ruleset) -> bool:
        """Whether the kernel has what it was given. What is new since the last look has to be there."""
        found = dict(self._run(_look, self._table))
        entries = [set(_CHAIN.findall(found.pop(block, ""))) for block in _VERDICTS]
        asking = set(_ADDRESS.findall(found.pop(_ASKING, "")))
        before, changed = self._blocks, self._changed
        self._blocks, self._changed = found, set()
        wanted = {guest.vm_id for guest in rules.guests}
        chains = [
            {vm_id for (family, head) in found if family == one for vm_id in _CHAIN.findall(head)}
            for one in ("inet", "bridge")
        ]
        if any(one != wanted for one in (*chains, *entries[: 2 if rules.plan.subnet6 is None else 3])):
            return False
        if asking != {str(guest.address) for guest in rules.resolving}:
            return False
        old = {} if before is None else before
        kept = {block for block in {*found, *old} if changed.isdisjoint(_OWNER.findall(block[1]))}
        return before is None or all(found.get(block) == old.get(block) for block in kept)


def _look(table: str) -> Sequence[tuple[tuple[str, str], str]]:
    """The blocks of both tables, without elements but for those of the shared maps."""
    found = [((family, head), text) for family, listed in nft.listings(table) for head, text in _BLOCK.findall(listed)]
    for family, head in (*_VERDICTS, _ASKING):
        found.append(((family, head), nft.members(family, table, head)))
    return found
