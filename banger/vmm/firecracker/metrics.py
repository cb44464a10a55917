"""What Firecracker has counted: a file with one JSON object a line (Firecracker: ``docs/metrics.md``).

A line is written when the machine starts, every minute, and at an end that Firecracker sees coming. Nearly all numbers
are what was counted since the line before. The last line may be half of one, and the file may begin with a hole where
it was cut. The process that writes it may belong to a guest by now: all that is read is bounded.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from banger.vmm.log_files import METRICS_FILE, METRICS_LIMIT_BYTES

#: Counters of what went wrong, by the last word of their names.
_ERRORS = re.compile(
    r"(?:^|_)(?:fails|failures|errors?|err|faults)$|^(?:missed|invalid)_|^error_count$|^panic_count$|^sig"
)
#: Numbers that are not counted from line to line: faults that end the process.
_ABSOLUTE = frozenset({"seccomp", "signals", "vmm"})
#: Of these there are sums and single devices (``block``, ``block_root``).
_SUMS = ("block", "net")
_MOST_COUNTERS, _MOST_NAME = 50, 80
_MOST_NUMBER = 1 << 62


def metrics_file(vmm_log: Path) -> Path:
    """Where the metrics of the machine with that log are."""
    return vmm_log.with_name(METRICS_FILE)


def begin_metrics(file: Path) -> None:
    """Make the file, which older versions do not make, without those of an earlier process: they are about one."""
    for stale in (file, _cut_off(file)):
        stale.unlink(missing_ok=True)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def read_error_counters(file: Path) -> Mapping[str, int]:
    """Those of a machine, as far back as the file goes; empty without one."""
    return error_counters(line for part in (_cut_off(file), file) for line in _lines(part))


def error_counters(lines: Iterable[str]) -> Mapping[str, int]:
    """What went wrong and how often: ``{"block_data.execute_fails": 2}``. Pure."""
    counted: Counter[str] = Counter()
    for line in lines:
        for group, numbers in _groups(line):
            for name, number in numbers.items():
                if not _is_number(number) or not _ERRORS.search(name):
                    continue
                key = f"{group}.{name}"[:_MOST_NAME]
                if key in counted or len(counted) < _MOST_COUNTERS:
                    counted[key] = max(counted[key], number) if group in _ABSOLUTE else counted[key] + number
    return dict(sorted(counted.items()))


def _groups(line: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return
    if not isinstance(record, dict):
        return
    for group, numbers in record.items():
        is_sum = group in _SUMS and any(name.startswith(f"{group}_") for name in record)
        if isinstance(numbers, dict) and not is_sum:
            yield group, numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST_NUMBER


def _cut_off(file: Path) -> Path:
    """What :func:`banger.vmm.log_files.bound` has cut off."""
    return file.with_name(f"{file.name}.1")


def _lines(path: Path) -> Iterator[str]:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2 * METRICS_LIMIT_BYTES))
        for line in file.read(2 * METRICS_LIMIT_BYTES).decode(errors="replace").splitlines():
            if (record := line.strip("\0 ")).startswith("{"):  # parsing a million others would take seconds
                yield record
