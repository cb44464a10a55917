"""What many guests on taps cost: one more of them is started and stopped beside ten others, and beside a thousand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from banger.core import clock
from banger.core.models import Vm, VmState
from banger.core.wire.vm_spec import VmSpec
from banger.network import links
from banger.network.guests import ADDRESS_KIND, TAP_KIND, Guest, guests_in
from banger.network.probe import available
from bench.measure import Comparison, interleaved
from tests.support.netlab import INSTALLATION, Lab

FEW, MANY = 10, 1000
ROUNDS = 11
#: More than with few, a start or a stop may take with many: a small part of what it takes at all.
MOST_MORE_S = 0.1


def run(root: Path, rounds: int) -> Iterator[Comparison]:
    """Preparing the network of a start, and taking it down, with many taps against few; and the same for a look."""
    can, reason = available()
    if not can:
        raise RuntimeError(reason)
    with ExitStack() as stack:
        few, many = (_crowded(stack, root / f"taps-{count}", count) for count in (FEW, MANY))
        sides = {
            f"{what} {name}": _timed(lab, work)
            for name, lab in (("few", few), ("many", many))
            for what, work in (("start", _start), ("stop", _stop))
        }
        medians = interleaved(sides, max(rounds, ROUNDS))
    for what in ("start", "stop"):
        few_s, many_s = medians[f"{what} few"], medians[f"{what} many"]
        yield Comparison(
            f"network of a {what} beside {MANY} taps vs beside {FEW}",
            many_s,
            few_s,
            MOST_MORE_S,
            limit_is_difference=True,
        )


def _crowded(stack: ExitStack, directory: Path, count: int) -> Lab:
    """A host with so many taps."""
    directory.mkdir()
    lab = Lab(stack, directory, bridge_netfilter=False)
    lab.prepare(_vm(0))
    ledger = lab.ledgers[INSTALLATION]
    others = guests_in(ledger.all())
    with lab.host.entered():
        for number in range(1, count):
            vm = _vm(number)
            guest = Guest.allot(vm, INSTALLATION, others[0].plan, others, None)
            others.append(guest)
            own = ledger.of_vm(vm.id)
            own.activate(ADDRESS_KIND, str(guest.address), guest.detail())
            own.activate(TAP_KIND, guest.tap)
            links.ensure_tap(INSTALLATION, guest, 0)
    lab.refresh()
    return lab


def _vm(number: int) -> Vm:
    return Vm(
        hashlib.sha256(str(number).encode()).hexdigest()[:12],
        f"vm{number}",
        VmSpec("debian", network="tap"),
        VmState.STARTING,
        clock.now(),
    )


_ONE_MORE = _vm(-1)


def _start(lab: Lab) -> None:
    lab.prepare(_ONE_MORE)


def _stop(lab: Lab) -> None:
    lab.clean(_ONE_MORE)


def _timed(lab: Lab, work: Callable[[Lab], None]) -> Callable[[], float]:
    def side() -> float:
        begun = time.perf_counter()
        work(lab)
        return time.perf_counter() - begun

    return side
