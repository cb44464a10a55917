"""What Firecracker has counted: only what went wrong, whole lines, from everybody who may write that file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from banger.vmm.firecracker.metrics import begin_metrics, error_counters, metrics_file, read_error_counters
from banger.vmm.log_files import bound, limits_of

#: Of a line that Firecracker 1.12.1 has written.
QUIET = {
    "utc_timestamp_ms": 1764354000000,
    "api_server": {"process_startup_time_us": 9000, "process_startup_time_cpu_us": 5000},
    "block_data": {"execute_fails": 0, "read_count": 812, "read_agg": {"min_us": 1, "max_us": 9, "sum_us": 99}},
    "block": {"execute_fails": 0, "read_count": 812},
    "uart": {"error_count": 0, "missed_write_count": 0, "write_count": 2000},
    "signals": {"sigbus": 0, "sigpipe": 0},
    "seccomp": {"num_faults": 0},
}


def line(**groups: object) -> str:
    return json.dumps({**QUIET, **groups})


def test_machine_in_which_all_is_well_has_none() -> None:
    assert error_counters([line(), line()]) == {}


def test_errors_are_added_up_from_line_to_line_and_told_by_device_only() -> None:
    failing = {"block_data": {"execute_fails": 2, "read_count": 7}, "block": {"execute_fails": 2}}
    assert error_counters([line(**failing), line(), line(**failing)]) == {"block_data.execute_fails": 4}


def test_sum_is_told_where_there_are_no_devices() -> None:
    assert error_counters([line(net={"tap_write_fails": 3, "tx_count": 5})]) == {"net.tap_write_fails": 3}


def test_fault_that_ends_the_process_is_no_count_from_line_to_line() -> None:
    dying = line(seccomp={"num_faults": 1}, signals={"sigbus": 1})
    assert error_counters([dying, dying]) == {"seccomp.num_faults": 1, "signals.sigbus": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        line()[:-9],
        "[1]",
        '{"block_data": 3}',
        "[" * 100_000,
        line(uart={"error_count": True, "missed_write_count": "many", "fails": -1}),
        line(uart={"error_count": 10**30}),
        '{"uart": {"error_count": ' + "9" * 5000 + "}}",
    ],
)
def test_what_is_no_count_is_left_out(text: str) -> None:
    assert error_counters([text]) == {}


def test_guest_that_writes_the_file_cannot_make_it_long() -> None:
    groups = {f"g{number}": {"x" * 500 + "_fails": 1} for number in range(1000)}
    found = error_counters([json.dumps(groups)])
    assert len(found) == 50
    assert all(len(name) <= 80 for name in found)


def test_file_is_cut_like_a_log_and_what_was_cut_off_still_counts(tmp_path: Path) -> None:
    file = metrics_file(tmp_path / "vmm.log")
    limit_bytes = dict(limits_of(tmp_path))[file]
    failing = line(uart={"error_count": 1}) + "\n"
    with file.open("wb", buffering=0) as writer:  # as Firecracker opens it: it goes on at the old end
        writer.write(failing.encode() + b"\n" * limit_bytes)
        assert bound(file, limit_bytes * 2) is False
        writer.write(failing.encode())
        assert bound(file, limit_bytes)
        writer.write(failing.encode())
        writer.write(failing.encode()[:-9])
    assert file.stat().st_blocks * 512 < limit_bytes
    assert read_error_counters(file) == {"uart.error_count": 2}


def test_next_start_counts_anew(tmp_path: Path) -> None:
    file = metrics_file(tmp_path / "vmm.log")
    for path in (file, file.with_name(f"{file.name}.1")):
        path.write_text(line(uart={"error_count": 1}))
    begin_metrics(file)
    assert read_error_counters(file) == {}
    assert file.stat().st_mode & 0o777 == 0o600
