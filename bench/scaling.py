"""What many VMs cost one supervisor: its first reconcile, its memory, its lists. Stand-ins run in the place of VMMs.

A stand-in is a process of its own with a VMM's marker, in the ledger as a VMM is, so adoption does all it does for a
real one: identity by boot id, pid, start time and command line, a pidfd to watch. What a guest's channel would add is
made when somebody first uses it, also for real ones.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from banger.client import Client
from banger.core import clock
from banger.core.models import Vm, VmState
from banger.core.names import new_id, vmm_marker
from banger.core.wire.vm_spec import VmSpec
from banger.host.ledger import Ledger
from banger.layout import Layout
from banger.store import Store
from banger.vmm import identity as processes
from bench import unit
from bench.chart import line_chart
from bench.measure import Comparison
from tests.support.daemon import BangerHome, banger_home

SIZES = (0, 250, 500, 1000)
#: What is promised for the largest size; times in units of work (2 s and 50 ms where one takes 12 ms).
RECONCILE_UNITS, RSS_MIB, LIST_UNITS = 170.0, 150.0, 4.0
CHART = Path(__file__).with_name("scaling.svg")


@dataclass(frozen=True, slots=True)
class Point:
    """What one number of VMs costs; times in seconds, and what the unit of work took between them."""

    vms: int
    reconcile_s: float
    rss_mib: float
    list_s: float
    reconcile_unit_s: float
    list_unit_s: float


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Measure every size; the chart is drawn beside this file."""
    points = [measure(root, size, rounds) for size in SIZES]
    CHART.write_text(chart(points))
    most, quarter = points[-1], points[1]
    of_many = f"of {most.vms} running VMs"
    name = f"first reconcile {of_many} vs the unit of work"
    yield Comparison(name, most.reconcile_s, most.reconcile_unit_s, RECONCILE_UNITS)
    yield Comparison(f"memory of a supervisor {of_many}, allowed", most.rss_mib, RSS_MIB, 1, unit="MiB")
    yield Comparison(f"list {of_many} at the API vs the unit of work", most.list_s, most.list_unit_s, LIST_UNITS)
    times = most.vms / quarter.vms
    grown, linear = most.reconcile_s, quarter.reconcile_s * times
    yield Comparison(f"first reconcile of {most.vms} VMs vs {times:g} times that of {quarter.vms}", grown, linear, 1.5)


def measure(root: Path, size: int, rounds: int) -> Point:
    """A daemon with ``size`` running VMs: medians of several starts and lists."""
    with banger_home(root) as home, stand_ins(home, size):
        reconciles = [(first_reconcile_s(home), unit_s()) for _ in range(rounds)]
        home.run("daemon", "start").ok()
        client = Client(home.socket)
        lists = [(list_s(client), unit_s()) for _ in range(rounds * 3)]
        rss = rss_mib(home.daemon_pid())
        home.run("daemon", "stop").ok()
    (reconcile_s, reconcile_unit_s), (listed_s, list_unit_s) = _medians(reconciles), _medians(lists)
    return Point(size, reconcile_s, rss, listed_s, reconcile_unit_s, list_unit_s)


def unit_s() -> float:
    """The unit of work, once more often than it is disturbed."""
    return statistics.median(unit.seconds() for _ in range(3))


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    ours, units = zip(*pairs, strict=True)
    return statistics.median(ours), statistics.median(units)


def first_reconcile_s(home: BangerHome) -> float:
    """How long a fresh daemon reconciles before it serves."""
    home.run("daemon", "start").ok()
    operations = home.json("op", "list")
    home.run("daemon", "stop").ok()
    return float(next(one["elapsed_s"] for one in operations if one["kind"] == "system.reconcile"))


def list_s(client: Client) -> float:
    """One list of every VM, from the request to the parsed answer."""
    started = time.perf_counter()
    client.get("/v1/vms")
    return time.perf_counter() - started


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def stand_ins(home: BangerHome, count: int) -> Iterator[None]:
    """``count`` VMs that run as far as the supervisor can tell, recorded as an earlier daemon would have."""
    layout = Layout.from_environment(home.cli.env)
    layout.make_directories()
    store = Store(layout.database)
    ledger = Ledger(store.handles, layout)
    with store.database.transaction():
        vms = [_vm(number) for number in range(count)]
        for vm in vms:
            store.vms.insert(vm)
    started = [_start(layout, vm) for vm in vms]
    try:
        with store.database.transaction():
            for vm, pid in zip(vms, started, strict=True):
                identity = processes.identify(pid, vmm_marker(vm.id))
                ledger.begin(vm)
                ledger.of(vm.id).activate("process", identity.marker, asdict(identity))
        store.close()
        yield
    finally:
        _end(started)


def _vm(number: int) -> Vm:
    return Vm(new_id(), f"vm-{number}", VmSpec("debian"), VmState.RUNNING, clock.now(), storage="overlay")


def _start(layout: Layout, vm: Vm) -> int:
    layout.vm_dir(vm.id).mkdir(mode=0o700)
    argv = ["sh", "-c", "read _", vmm_marker(vm.id)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True)
    _KEPT.append(process)
    return process.pid


#: Their standard input stays open as long as they are to live.
_KEPT: list[subprocess.Popen[bytes]] = []


def _end(pids: Sequence[int]) -> None:
    for process in [process for process in _KEPT if process.pid in set(pids)]:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()
        _KEPT.remove(process)


def chart(points: Sequence[Point]) -> str:
    """All three costs over the number of VMs, each as a share of what is allowed for the most."""
    reconcile_s, list_s = RECONCILE_UNITS * points[-1].reconcile_unit_s, LIST_UNITS * points[-1].list_unit_s
    return line_chart(
        "Running VMs of one supervisor, in percent of what is allowed",
        [point.vms for point in points],
        {
            f"first reconcile (of {reconcile_s:.1f} s)": [100 * point.reconcile_s / reconcile_s for point in points],
            f"memory (of {RSS_MIB:g} MiB)": [100 * point.rss_mib / RSS_MIB for point in points],
            f"list at the API (of {list_s * 1000:.0f} ms)": [100 * point.list_s / list_s for point in points],
        },
    )
