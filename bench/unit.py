"""The unit of work that bars are counted in, so that they mean the same on a slow machine: a fixed piece of Python.

It decodes, changes, encodes and links records of the size of a VM's, in this process: what the supervisor does when it
lists or reconciles. It is measured between the runs of what is compared with it, so that both meet the same machine.

Bars were counted in starts of a bare interpreter once, of which one took 12 ms on the machine that they were set on.
But there it took 12 ms or 18, from one minute to the next; 300 of each in turn, tenth to ninetieth percentile: 12.5 to
19.2 ms for a start, 7.1 to 8.5 ms for 600 records. So the unit is as many records as took just under 12 ms where a bare
start took 12 at best, and the numbers of the bars have stayed: they mean the same times. What begins with the start of
an interpreter itself (``banger vm list``) is still compared with one.
"""

from __future__ import annotations

import gc
import json
import time
from dataclasses import dataclass
from typing import Any

RECORDS = 1000
_RECORD = {
    "id": "0123456789abcdef",
    "name": "vm-1",
    "spec": {"image": "debian", "cpus": 2, "memory_mib": 2048, "labels": {"a": "b"}, "env": ["A=1", "B=2"]},
    "state": "running",
    "ports": [{"host": 8080, "guest": 80}],
    "started_at": None,
    "timings": [{"name": "create disk", "started_s": 0.25, "duration_s": 1.5}],
}


@dataclass(slots=True)
class _Link:
    name: str
    record: dict[str, Any]
    before: _Link | None


def seconds() -> float:
    """How long one takes, here and now."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        _work()
        return time.perf_counter() - started
    finally:
        if collecting:
            gc.enable()


def _work() -> int:
    text = json.dumps(_RECORD)
    last, lengths = None, {}
    for number in range(RECORDS):
        record = json.loads(text)
        record["name"] = name = f"vm-{number}"
        record["spec"]["cpus"] = number
        lengths[name] = len(json.dumps(record))
        last = _Link(name, record, last)
    total = 0
    while last is not None:
        total += lengths[last.name]
        last = last.before
    return total
