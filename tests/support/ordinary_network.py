"""The network ``user`` of somebody who is not root: a program of its own, since a process has one user.

``python -m tests.support.ordinary_network DIRECTORY ID``: for each line of JSON, the fields of a spec, on standard input, a
VM is prepared, and what it got is printed; at the end of the input, all is taken down.
"""

from __future__ import annotations

import base64
import pickle
import sys
from pathlib import Path

from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import Forwarders, Reach
from banger.forwarding.publisher import Publisher
from banger.network.namespace.place import NamespacePlace
from banger.network.tap import TapNetwork
from tests.support.netlab import MemoryLedger, make_vm, operation


def main(directory: Path, installation_id: str) -> None:
    ledger, place = MemoryLedger(), NamespacePlace(installation_id, directory)
    forwarders = Forwarders(installation_id, lambda vm: Reach(directory / vm.id, 0, directory / "log"))
    network = TapNetwork(
        installation_id,
        place,
        ledger.all,
        Publisher(forwarders, lambda _: {}, Doorbells(lambda _: None)),
        resolver=lambda _: None,
    )
    try:
        for number, line in enumerate(sys.stdin, 1):
            vm = make_vm(number, "user", egress=line.strip())
            given = network.prepare(vm, None, ledger.of_vm(vm.id), operation())  # type: ignore[arg-type]
            print(base64.b64encode(pickle.dumps(given)).decode(), flush=True)
    finally:
        place.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
