"""The small world of :mod:`tests.support.netlab` for the network ``user``: its taps are in a namespace of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from banger.core.names import new_id
from banger.network.namespace import probe
from banger.network.namespace.holder import find_holder
from banger.network.namespace.place import NamespacePlace
from tests.support.netlab import Lab, Namespace

needs_namespaces = pytest.mark.skipif(bool(probe.obstacle()), reason=probe.obstacle() or "-")


class ApartLab(Lab):
    """A host whose installation makes its taps in a namespace with an uplink by ``pasta``."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.own = new_id()  # its processes are found by it, and are seen from everywhere
        self.places: list[NamespacePlace] = []
        super().__init__(stack, directory, bridge_netfilter=False)
        stack.callback(self._close)

    def place(self, installation_id: str) -> NamespacePlace:
        place = NamespacePlace(installation_id, self._directory)
        self.places.append(place)
        return place

    @property
    def taps(self) -> Namespace:
        holder = find_holder(self.own)
        assert holder is not None
        return Namespace(self.stack, holder.pid)

    def _close(self) -> None:
        with self.host.entered():
            for place in self.places:
                place.close()
