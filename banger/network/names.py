"""Names of what the host holds for guests on taps. Everything carries the installation's id. Pure.

A network interface's name has at most 15 characters (``IFNAMSIZ`` in linux/if.h), too few for two ids. A bridge's name
holds the whole installation id; a tap's the beginnings of both ids, and its alias (``IFLA_IFALIAS``, up to 255
characters) says the whole truth. The alias is set a moment after the tap is made, so a tap may be without.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from banger.core import clock

_INSTALLATION_DIGITS, _VM_DIGITS = 6, 7
_TAP = re.compile(rf"bt([0-9a-f]{{{_INSTALLATION_DIGITS}}})([0-9a-f]{{{_VM_DIGITS}}})")
_ALIAS = re.compile(r"banger ([0-9a-f]{12}) ([0-9a-f]{12}|-) (\S+)")


@dataclass(frozen=True, slots=True)
class Alias:
    """What the alias of an interface of ours says. ``vm_id`` is empty for what all VMs share."""

    installation_id: str
    vm_id: str
    made_at: datetime

    @classmethod
    def parse(cls, text: str) -> Alias | None:
        """Read an alias; None if it is not one of ours."""
        match = _ALIAS.fullmatch(text)
        if match is None:
            return None
        try:
            return cls(match[1], match[2].strip("-"), clock.parse_rfc3339(match[3]))
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"banger {self.installation_id} {self.vm_id or '-'} {clock.rfc3339(self.made_at)}"


def bridge_name(installation_id: str) -> str:
    """The bridge of an installation."""
    return f"bg{installation_id}"


def tap_name(installation_id: str, vm_id: str) -> str:
    """The tap of a VM."""
    return f"bt{installation_id[:_INSTALLATION_DIGITS]}{vm_id[:_VM_DIGITS]}"


def tap_pattern(installation_id: str) -> str:
    """What the names of all taps of an installation match in nftables."""
    return tap_name(installation_id, "") + "*"


def table_name(installation_id: str) -> str:
    """The nftables table of an installation; it has one of this name in each of two families."""
    return f"banger_{installation_id}"


def owner_of(name: str, alias: str, installation_id: str) -> str | None:
    """Whose tap an interface is: the VM's id, or its beginning if the tap has no alias yet; None if it is not ours.

    A name alone does not prove it: another installation's id may begin alike, but then the alias tells.
    """
    match = _TAP.fullmatch(name)
    if match is None or match[1] != installation_id[:_INSTALLATION_DIGITS]:
        return None
    if not alias:
        return match[2]
    said = Alias.parse(alias)
    if said is None or said.installation_id != installation_id or tap_name(installation_id, said.vm_id) != name:
        return None
    return said.vm_id
