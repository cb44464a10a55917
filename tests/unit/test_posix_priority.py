"""Processes that are to be in nobody's way."""

from __future__ import annotations

import os
import subprocess

from banger.posix.priority import lower_priority


def test_process_has_little_where_others_want_it_and_so_have_those_that_it_starts() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read _; nice"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        lower_priority(shell.pid)
        assert os.getpriority(os.PRIO_PROCESS, shell.pid) == 10
        told, _ = shell.communicate(b"\n")
    assert told == b"10\n"


def test_of_a_process_that_is_gone_there_is_nothing_to_lower() -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        gone.wait()
    lower_priority(gone.pid)
