"""How long it takes to be told which VMs there are: mostly the start of an interpreter, many times a day."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from banger.core import clock
from banger.core.models import Vm, VmState
from banger.core.names import new_id
from banger.core.wire.vm_spec import VmSpec
from banger.store import Store
from bench.measure import Comparison, interleaved, plain_environment, timed
from bench.peers import installed
from tests.support.daemon import banger_home

ROUNDS = 21
_ROWS, _READS = 50, 20


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """``banger vm list`` with its daemon up, against smolvm's list and against an interpreter that does nothing."""
    smolvm = installed("smolvm") / "smolvm"
    here = Path(sys.executable).parent
    with banger_home(root) as home:
        home.run("daemon", "start").ok()
        ours = plain_environment(BANGER_HOME=str(home.path))
        theirs = plain_environment(SMOLVM_DATA_DIR=str(home.path / "smolvm"), HOME=str(home.path))
        medians = interleaved(
            {
                "banger": lambda: timed([here / "banger", "vm", "list"], ours),
                "smolvm": lambda: timed([smolvm, "sandbox", "list"], theirs),
                "bare": lambda: timed([sys.executable, "-c", "pass"], plain_environment()),
            },
            max(rounds, ROUNDS),
        )
    yield Comparison("vm list vs smolvm sandbox list", medians["banger"], medians["smolvm"], 0.25)
    yield Comparison("vm list vs bare interpreter", medians["banger"], medians["bare"], 9)
    yield _beside_a_writer(root / "store.db", rounds)


def _beside_a_writer(path: Path, rounds: int) -> Comparison:
    """Reading rows beside a thread that commits without pause and waits for the disk, against reading alone."""
    store = Store(path)
    for number in range(_ROWS):
        store.vms.insert(Vm(new_id(), f"vm-{number}", VmSpec("debian"), VmState.STOPPED, clock.now()))
    one = store.vms.find("vm-0")
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            store.vms.update(one)

    def read() -> float:
        begun = time.monotonic()
        for _ in range(_READS):
            store.vms.all()
        return (time.monotonic() - begun) / _READS

    def read_beside_a_writer() -> float:
        ended.clear()
        writer = threading.Thread(target=write)
        writer.start()
        try:
            return read()
        finally:
            ended.set()
            writer.join()

    medians = interleaved({"beside": read_beside_a_writer, "alone": read}, max(rounds, ROUNDS))
    store.close()
    return Comparison("reading rows beside a writer that syncs vs alone", medians["beside"], medians["alone"], 3)
