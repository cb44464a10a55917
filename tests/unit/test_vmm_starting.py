"""What all VMMs' starts have in common, with processes that become their program late, or never."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.names import vmm_marker
from banger.core.ports import VmmConfig
from banger.vmm import identity as processes
from banger.vmm.starting import NotRunningError, start

VM_ID = "0123456789ab"
MARKER = vmm_marker(VM_ID)


def config(place: Path) -> VmmConfig:
    log = place / "vmm.log"
    return VmmConfig(VM_ID, "web", place, log, log, "", 1, 32, (), {}, "kvm", log, log)


def explain(config: VmmConfig, log: str, error: Exception, *, timed_out: bool) -> BangerError:
    return BangerError(ErrorKind.UNAVAILABLE, f"{log}{error} {timed_out}")


@contextmanager
def process(script: str, *arguments: str) -> Iterator[int]:
    """A process of a shell, which has no marker until it executes something that has."""
    with subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *arguments], stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        yield child.pid
        child.kill()


def test_process_that_becomes_its_program_late_is_waited_for(tmp_path: Path) -> None:
    seen: list[bool] = []
    first, last = MARKER[:8], MARKER[8:]
    with process('sleep 0.1; exec sh -c "read -r line" "$1$2"', first, last) as pid:
        spawned = start(
            config(tmp_path),
            spawn=lambda: pid,
            wait_running=lambda one: seen.append(processes.is_same(one)),
            explain=explain,
            on_spawn=lambda one: seen.append(processes.is_being_executed(one)),
        )
        assert seen == [True, True]
        assert processes.is_same(spawned)


def test_process_that_ends_before_it_is_its_program_is_not_waited_for(tmp_path: Path) -> None:
    def gone(one: ProcessIdentity) -> None:
        raise NotRunningError("gone")

    with process("exit 1") as pid, pytest.raises(BangerError, match="gone False"):
        start(config(tmp_path), spawn=lambda: pid, wait_running=gone, explain=explain, on_spawn=lambda one: None)


def test_machine_that_does_not_run_is_told_in_its_vmms_words_and_no_process_is_left(tmp_path: Path) -> None:
    log = tmp_path / "vmm.log"
    log.write_text("of an earlier start\n")

    def late(one: ProcessIdentity) -> None:
        with log.open("a") as file:
            file.write("out of luck ")
        raise NotRunningError("late", timed_out=True)

    with process("read -r line", MARKER) as pid:
        with pytest.raises(BangerError, match=r"^out of luck late True$"):
            start(config(tmp_path), spawn=lambda: pid, wait_running=late, explain=explain, on_spawn=lambda one: None)
        assert processes.find(MARKER) is None
