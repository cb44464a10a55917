"""What the jail of a VMM costs a start: the same machine with a user of its own, and as root."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Comparison, interleaved
from tests.support.machines import Rig

#: Seconds that the jail may add to a start.
MOST_S = 0.060
#: A start takes a tenth of a second, and the difference is small: more of them than of others are run.
ROUNDS = 21


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """From the call of the driver until the machine runs; its guest needs no time to come up."""
    if os.geteuid() != 0:
        raise RuntimeError("only root's daemon has a jail")
    with tempfile.TemporaryDirectory(dir=root) as cache:
        rig = Rig.build("qemu-jailed", Path(tempfile.mkdtemp(dir=root)), Path(cache))

        def start(**changes: object) -> float:
            config = rig.config(**changes)  # type: ignore[arg-type]
            started = time.perf_counter()
            identity = rig.vmm.launch(config, lambda _: None)
            elapsed = time.perf_counter() - started
            rig.processes.kill(identity)
            return elapsed

        try:
            took = interleaved({"jailed": start, "as root": lambda: start(uid=0)}, max(rounds, ROUNDS))
        finally:
            rig.close()
    yield Comparison(
        "start of a VMM in its jail, and as root", took["jailed"], took["as root"], MOST_S, limit_is_difference=True
    )
