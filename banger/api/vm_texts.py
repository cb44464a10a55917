"""VMs as JSON text, for lists of many.

The store gives the same object for a row that has not changed (:mod:`banger.store.rows`), so what was written of a VM
can be given out again. Hardly any of a thousand VMs changes between two lists, and writing takes most of a list's time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from banger.core.models import Vm

#: VMs whose text is kept, of about 1 KiB each: as many as a large installation has.
_MOST_KEPT = 4096

#: What is said of a VM beside its own fields.
Derived = dict[str, str | int]


class VmTexts:
    """Remembers what was written last of each VM. Used by one thread."""

    def __init__(self, plain: Callable[[Vm], dict[str, Any]]) -> None:
        """``plain`` gives a VM's own fields."""
        self._plain = plain
        self._kept: dict[str, tuple[Vm, Derived, str]] = {}

    def array(self, vms: Iterable[tuple[Vm, Derived]]) -> bytes:
        """A JSON array of VMs, each with what is derived."""
        if len(self._kept) > _MOST_KEPT:  # of VMs that are gone, perhaps
            self._kept.clear()
        return f"[{','.join(self._text(vm, derived) for vm, derived in vms)}]".encode()

    def _text(self, vm: Vm, derived: Derived) -> str:
        kept = self._kept.get(vm.id)
        if kept is not None and kept[0] is vm and kept[1] == derived:
            return kept[2]
        text = json.dumps({**self._plain(vm), **derived}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._kept[vm.id] = vm, derived, text
        return text
