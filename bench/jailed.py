"""What the jail of a VMM costs a start: the same machine with a user of its own, and as root.

Run as a program it measures one kind of machine where it is, and prints both medians as JSON: ``KIND ROUNDS``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from banger.core.models import ProcessIdentity
from banger.core.ports import VmmConfig
from banger.vmm.firecracker.binary import SETTING, inspect
from bench.measure import Comparison, interleaved
from tests.support.firecracker import binaries
from tests.support.idle_firecracker import start_idle
from tests.support.machines import Rig

#: Seconds that the jail may add to a start.
MOST_S = 0.060
#: A start takes a tenth of a second, and the difference is small: more of them than of others are run.
ROUNDS = 21
JAILED, AS_ROOT = "jailed", "as root"


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """From the call of the driver until the machine runs; its guest needs no time to come up.

    Firecracker has no machine, which would take KVM: until it answers. With one, see :mod:`bench.vmms`.
    """
    if os.geteuid() != 0:
        raise RuntimeError("only root's daemon has a jail")
    for name, kind in (("QEMU", "qemu-jailed"), ("Firecracker", "firecracker-jailed")):
        took = medians(kind, root, max(rounds, ROUNDS), with_machine=name == "QEMU")
        what = f"start of {name} in its jail, and as root"
        yield Comparison(what, took[JAILED], took[AS_ROOT], MOST_S, limit_is_difference=True)


def medians(kind: str, root: Path, rounds: int, *, with_machine: bool = True) -> Mapping[str, float]:
    """Seconds of a start, jailed and as root."""
    with tempfile.TemporaryDirectory(dir=root) as cache:
        rig = Rig.build(kind, Path(tempfile.mkdtemp(dir=root)), Path(cache))
        idle = None if with_machine else inspect(binaries()[0], SETTING)

        def launch(config: VmmConfig) -> ProcessIdentity:
            return start_idle(idle, config) if idle else rig.vmm.launch(config, lambda _: None)

        def start(**changes: object) -> float:
            config = rig.config(**changes)  # type: ignore[arg-type]
            started = time.perf_counter()
            identity = launch(config)
            elapsed = time.perf_counter() - started
            rig.processes.kill(identity)
            return elapsed

        try:
            return interleaved({JAILED: start, AS_ROOT: lambda: start(uid=0)}, rounds)
        finally:
            rig.close()


if __name__ == "__main__":
    print(json.dumps(medians(sys.argv[1], Path(tempfile.gettempdir()), int(sys.argv[2]))))
