"""The objects of this installation's tap network on the host, for reconcile and ``banger doctor --leaks``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from banger.core.errors import BangerError
from banger.core.ports import HostObject
from banger.network import links, nft
from banger.network.guests import TAP_KIND, Guest
from banger.network.names import bridge_name, owner_of, table_name
from banger.network.place import Place


def host_objects(
    installation_id: str, guests: Sequence[Guest], lower: Callable[[], None], place: Place
) -> list[HostObject]:
    """Bridge, taps and tables that carry the installation's id.

    Args:
        installation_id: whose.
        guests: that the ledger knows.
        lower: takes down what is shared.
        place: where to look.
    """
    return [
        *place.host_objects(),
        *_links(installation_id, guests, lower, place),
        *_tables(installation_id, guests, lower, place),
    ]


def _links(
    installation_id: str, guests: Sequence[Guest], lower: Callable[[], None], place: Place
) -> Iterator[HostObject]:
    by_tap = {guest.tap: guest.vm_id for guest in guests}
    for link in place.run(links.all_links):
        if link.name == bridge_name(installation_id):
            yield HostObject("bridge", link.name, "", _shared_reason(guests), lower, link.since, shared=True)
            continue
        owner = owner_of(link.name, link.alias, installation_id)
        if owner is None:
            continue
        # Without an alias the name tells only the beginning of the VM's id.
        vm_id = owner if link.alias else by_tap.get(link.name, owner)
        remove = partial(place.run, links.remove_tap, installation_id, link.name)
        yield HostObject(TAP_KIND, link.name, vm_id, f"network card of VM {vm_id}", remove, link.since)


def _tables(
    installation_id: str, guests: Sequence[Guest], lower: Callable[[], None], place: Place
) -> Iterator[HostObject]:
    try:
        tables = place.run(nft.tables)
    except BangerError:  # not root, or no nft: then there is nothing of ours either
        return
    for family, name in tables:
        if name == table_name(installation_id):
            yield HostObject("nft", f"{family} {name}", "", _shared_reason(guests), lower, shared=True)


def _shared_reason(guests: Sequence[Guest]) -> str:
    return f"used by {len(guests)} VM{'s' if len(guests) != 1 else ''} on taps" if guests else "no VM needs it"
