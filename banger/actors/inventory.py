"""The objects of this installation on the host, and their owners; those without one are leaks."""

from __future__ import annotations

import time
from dataclasses import dataclass

from banger.actors.services import Services
from banger.core.ports import HostObject


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """One object and its place in the ledger: ``owner`` is the VM that holds it, empty if nobody does."""

    kind: str
    key: str
    owner: str
    reason: str
    is_leak: bool


def all_objects(services: Services) -> list[HostObject]:
    """Every object on the host that carries this installation's id. Listed anew each time."""
    return [found for lister in services.host.host_objects for found in lister()]


def leaks(services: Services, grace_s: float) -> list[HostObject]:
    """Objects that no VM's ledger names and that are older than ``grace_s``.

    The host is looked at before the ledger: what is made after the look was written down before it was made.
    """
    objects = all_objects(services)
    held = {(handle.kind, handle.key) for handle in services.host.ledger.all()}
    limit = time.time() - grace_s
    return [
        found for found in objects if not found.shared and (found.kind, found.key) not in held and found.since <= limit
    ]


def is_held(services: Services, found: HostObject) -> bool:
    """True if a VM's ledger names it now."""
    return any((handle.kind, handle.key) == (found.kind, found.key) for handle in services.host.ledger.all())


def overview(services: Services) -> list[OwnedObject]:
    """Every object, for people: what it is, whose it is, and why it is there."""
    objects = all_objects(services)
    names = {vm.id: vm.name for vm in services.store.vms.all()}
    holders = {(handle.kind, handle.key): handle.vm_id for handle in services.host.ledger.all()}
    found = []
    for one in objects:
        holder = holders.get((one.kind, one.key), "")
        is_leak = not one.shared and not holder
        reason = f"{one.reason}; no VM holds it" if is_leak else one.reason
        found.append(OwnedObject(one.kind, one.key, names.get(holder, holder), reason, is_leak))
    return found
