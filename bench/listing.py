"""How long it takes to be told which VMs there are: mostly the start of an interpreter, many times a day."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from bench import unit
from bench.measure import Comparison, interleaved, plain_environment, timed
from bench.peers import installed
from tests.support.daemon import banger_home

ROUNDS = 21


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
                "bare": unit.bare_start,
            },
            max(rounds, ROUNDS),
        )
    yield Comparison("vm list vs smolvm sandbox list", medians["banger"], medians["smolvm"], 0.25)
    yield Comparison("vm list vs bare interpreter", medians["banger"], medians["bare"], 9)
