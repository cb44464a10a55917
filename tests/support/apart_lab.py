"""The small world of :mod:`tests.support.netlab` for the network ``user``: its taps are in a namespace of their own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from banger.core.names import new_id
from banger.network.namespace import probe
from banger.network.namespace.holder import marker_of
from banger.network.namespace.place import NamespacePlace
from tests.support.leaks import all_pids
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
        marker = marker_of(self.own).encode()
        holders = [pid for pid in all_pids() if _is_holder(Path(f"/proc/{pid}/cmdline"), marker)]
        assert len(holders) == 1, holders
        return Namespace(self.stack, holders[0])

    def _close(self) -> None:
        with self.host.entered():
            for place in self.places:
                place.close()


def _is_holder(command_line: Path, marker: bytes) -> bool:
    """Whoever's it is."""
    try:
        words = command_line.read_bytes().split(b"\0")
    except OSError:
        return False
    return words[:2] == [b"cat", b"-"] and marker in words
