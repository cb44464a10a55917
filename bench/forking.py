"""Copies of a running VM: how soon they answer, what they take, how long it stands still, and whether that grows."""

from __future__ import annotations

import math
import os
import select
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from banger.client import Client
from banger.sdk import Banger, Machine
from bench.chart import line_chart
from bench.measure import Comparison, interleaved, timed
from tests.support.daemon import BangerHome, banger_home

GUEST_MIB = 2048
#: At once, and what they may take of what as many cold starts and full guests do.
COPIES, OF_COLD_STARTS, OF_FULL_GUESTS = 8, 0.2, 0.15
OF_COLD_START = 0.15
#: Seconds that a VM may stand still while it is saved, and the sizes at which that is measured.
STILL_S, STILL_MIB = 0.1, (512, 4096)
#: Seconds between two signs of life that are asked for.
_PULSE_S = 0.004
GROWTH, GROWN_MIB, GROWN_BY = (1, 2, 4, 8, 16, 32, 64), 256, 1.5
CHART = Path(__file__).with_name("forking.svg")


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Every row with VMs of one image, emulated where this host has no KVM."""
    with banger_home(root) as home:
        home.run("vm", "run", "debian", "--name", "first", "--", "true").ok()
        home.run("vm", "delete", "--force", "first").ok()
        yield from _answers(home, rounds)
        for size in STILL_MIB:
            yield _standstill(home, size, rounds)
        yield from _growth(home)


# -- how soon they answer ----------------------------------------------------------------------------------


def _answers(home: BangerHome, rounds: int) -> Iterator[Comparison]:
    banger = Banger(home.path)
    with banger.machine("debian", name="primed", memory_mib=GUEST_MIB) as primed:
        primed.exec(["true"]).check()
        saved = primed.snapshot("ready")
        assert saved.memory_mib == GUEST_MIB
        medians = interleaved(
            {
                "cold": lambda: _cold(home),
                "snapshot": lambda: _forks(lambda: banger.vms.fork("ready")),
                "running": lambda: _forks(lambda: primed.fork(1)),
                "many": lambda: _forks(lambda: banger.vms.fork("ready", COPIES)),
            },
            rounds,
        )
        size = f"{GUEST_MIB // 1024} GiB guest"
        cold = medians["cold"]
        yield Comparison(f"fork of a snapshot of a {size}, vs a cold start", medians["snapshot"], cold, OF_COLD_START)
        what = f"fork of a running {size}, saving included, vs a cold start"
        yield Comparison(what, medians["running"], cold, math.inf)
        what = f"{COPIES} forks at once, all answered, vs as many cold starts"
        yield Comparison(what, medians["many"], COPIES * cold, OF_COLD_STARTS)
        mib = _memory_of_forks(banger)
        what = f"memory of {COPIES} forks vs {COPIES} full guests"
        yield Comparison(what, mib, COPIES * GUEST_MIB, OF_FULL_GUESTS, unit="MiB")
        banger.snapshots.delete("ready")


def _cold(home: BangerHome) -> float:
    """As a user begins one; a template would make it another fork."""
    argv = home.cli.argv("vm", "run", "debian", "--name", "cold", "--memory", f"{GUEST_MIB}M", "--", "true")
    seconds = timed(argv, home.cli.env)
    home.run("vm", "delete", "--force", "cold").ok()
    return seconds


def _forks(make: Callable[[], Sequence[Machine]]) -> float:
    """Seconds until every one has answered a command."""
    started = time.perf_counter()
    machines = make()
    _all_answer(machines)
    seconds = time.perf_counter() - started
    for one in machines:
        one.delete(force=True)
    return seconds


def _all_answer(machines: Sequence[Machine]) -> None:
    asked = [threading.Thread(target=lambda one=one: one.exec(["true"]).check()) for one in machines]
    for one in asked:
        one.start()
    for one in asked:
        one.join()


def _memory_of_forks(banger: Banger) -> float:
    """MiB that the VMMs of the forks take together; what they share counts once."""
    machines = banger.vms.fork("ready", COPIES)
    _all_answer(machines)
    mib = sum(_pss_mib(one.info.pid) for one in machines)
    for one in machines:
        one.delete(force=True)
    return mib


def _pss_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    return int(rollup.split("Pss:")[1].split()[0]) / 1024


# -- how long the VM stands still --------------------------------------------------------------------------


def _standstill(home: BangerHome, size_mib: int, rounds: int) -> Comparison:
    """The longest time that a guest did not echo a byte while it was saved, beyond what it takes otherwise."""
    with Banger(home.path).machine("debian", name="saved", memory_mib=size_mib) as vm:
        argv = home.cli.argv("vm", "exec", "saved", "--", "cat")
        with subprocess.Popen(argv, env=home.cli.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as echo:
            times = []
            for number in range(rounds):
                quiet = _longest_echo(echo, lambda: time.sleep(1.0))
                name = f"s{number}"
                times.append(_longest_echo(echo, lambda name=name: vm.snapshot(name)) - quiet)  # type: ignore[misc]
                home.run("snapshot", "delete", name).ok()
            echo.kill()
    what = f"a guest of {size_mib} MiB stands still while it is saved, allowed"
    return Comparison(what, statistics.median(times), STILL_S, 1.0)


def _longest_echo(echo: subprocess.Popen[bytes], work: Callable[[], object]) -> float:
    assert echo.stdin is not None
    assert echo.stdout is not None
    over, longest = threading.Event(), 0.0

    def do() -> None:
        try:
            work()
        finally:
            over.set()

    worker = threading.Thread(target=do)
    worker.start()
    while not over.is_set():
        started = time.perf_counter()
        echo.stdin.write(b".")
        echo.stdin.flush()
        if not select.select([echo.stdout], [], [], 120)[0]:
            raise RuntimeError("the guest does not echo any more")
        os.read(echo.stdout.fileno(), 1)
        longest = max(longest, time.perf_counter() - started)
        time.sleep(_PULSE_S)
    worker.join()
    return longest


# -- whether it grows --------------------------------------------------------------------------------------


def _growth(home: BangerHome) -> Iterator[Comparison]:
    banger = Banger(home.path)
    with banger.machine("debian", name="origin", memory_mib=GROWN_MIB) as origin:
        origin.snapshot("origin-ready")
    times, sizes = {}, {}
    for count in GROWTH:
        before = _used_bytes(banger.client)
        started = time.perf_counter()
        machines = banger.vms.fork("origin-ready", count)
        _all_answer(machines)
        times[count] = (time.perf_counter() - started) / count
        sizes[count] = (_used_bytes(banger.client) - before) / count
        for one in machines:
            one.delete(force=True)
    banger.snapshots.delete("origin-ready")
    CHART.write_text(_chart(times, sizes))
    most, few = GROWTH[-1], 8
    yield Comparison(f"time per fork of {most} at once vs of {few}", times[most], times[few], GROWN_BY)
    mib = {count: size / (1 << 20) for count, size in sizes.items()}
    yield Comparison(
        f"disk per fork of {most} at once vs of {few}", mib[most], max(mib[few], 1.0), GROWN_BY, unit="MiB"
    )


def _used_bytes(client: Client) -> int:
    df = client.get("/v1/system/df")
    return int(df["vms_bytes"]) + int(df["snapshots_bytes"])


def _chart(times: dict[int, float], sizes: dict[int, float]) -> str:
    """Both in percent of what one of the fewest takes."""
    first = GROWTH[0]
    lines = {
        "time per fork": [100 * times[count] / times[first] for count in GROWTH],
        "disk per fork": [100 * sizes[count] / max(sizes[first], 1) for count in GROWTH],
    }
    return line_chart(f"forks at once, in percent of one ({GROWN_MIB} MiB guests)", list(map(math.log2, GROWTH)), lines)
