"""One guest more or less in the packet filter, as text for ``nft -f``. Pure.

All that is about one guest is a chain of its own in either table, an entry of some maps and sets, and sets of its own;
so a start or a stop costs the same however many others run. The whole text is :class:`banger.network.rules.Ruleset`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from banger.network.anti_spoofing import FRAMES
from banger.network.guests import Guest
from banger.network.rules import EGRESS, RESOLVING, Ruleset, names_set


def is_separable(guest: Guest) -> bool:
    """Whether nothing else in the rules is about it. Ports that the kernel translates are rules in shared chains."""
    return not guest.translated


def added(rules: Ruleset, guest: Guest) -> str:
    """Have this guest, whose traces of an earlier start may still be there."""
    chain = _chain(guest)
    return "\n".join(
        [
            *(f"add chain {family} {rules.table} {chain}" for family in ("inet", "bridge")),
            *(f"flush chain {family} {rules.table} {chain}" for family in ("inet", "bridge")),
            *replace(rules, guests=[guest]).render_guests(),
            "",
        ]
    )


def removed(rules: Ruleset, guest: Guest) -> str:
    """Have this guest no more. It is there."""
    return "\n".join([*_removals(rules, guest), ""])


def _removals(rules: Ruleset, guest: Guest) -> Iterator[str]:
    inet, bridge, chain = f"inet {rules.table}", f"bridge {rules.table}", _chain(guest)
    yield f'delete element {bridge} {FRAMES} {{ "{guest.tap}" }}'
    yield f"delete element {inet} {EGRESS}4 {{ {guest.address} }}"
    if guest.address6 is not None:
        yield f"delete element {inet} {EGRESS}6 {{ {guest.address6} }}"
    if guest in replace(rules, guests=[guest]).resolving:
        yield f"delete element {inet} {RESOLVING} {{ {guest.address} }}"
    for table in (bridge, inet):
        yield f"flush chain {table} {chain}"
        yield f"delete chain {table} {chain}"
    if guest.egress.names:
        yield from (f"delete set {inet} {names_set(guest.vm_id, version)}" for version in (4, 6))


def _chain(guest: Guest) -> str:
    return f"vm_{guest.vm_id}"
