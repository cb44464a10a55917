"""How soon a VM that is taken back to a snapshot answers again, against a VM that boots."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from banger.sdk import Banger, Machine
from bench.measure import Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home

GUEST_MIB = 512
OF_COLD_START = 0.2


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Both end when the guest has run a command; emulated where this host has no KVM.

    Another VM runs all the time: what all VMs share, above all their network, is there for both sides.
    """
    with banger_home(root) as home:
        home.run("vm", "run", "debian", "--detach", "--name", "bystander").ok()
        with Banger(home.path).machine("debian", name="back", memory_mib=GUEST_MIB) as back:
            back.exec(["true"]).check()
            back.snapshot("then")
            medians = interleaved({"rewind": lambda: _rewind(back), "cold": lambda: _cold(home)}, rounds)
            home.run("snapshot", "delete", "then").ok()
    what = f"rewind of a running guest of {GUEST_MIB} MiB vs a cold start"
    yield Comparison(what, medians["rewind"], medians["cold"], OF_COLD_START)


def _rewind(back: Machine) -> float:
    back.exec(["sh", "-c", "head -c 16M /dev/urandom > /changed"]).check()
    started = time.perf_counter()
    back.rewind()
    back.exec(["test", "!", "-e", "/changed"]).check()
    return time.perf_counter() - started


def _cold(home: BangerHome) -> float:
    argv = home.cli.argv("vm", "run", "debian", "--name", "cold", "--memory", f"{GUEST_MIB}M", "--", "true")
    seconds = timed(argv, home.cli.env)
    home.run("vm", "delete", "--force", "cold").ok()
    return seconds
