"""Crashes at every point of a VM's life with the host's real drivers: the suite of the owners, run where they work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.netlab import needs_taps
from tests.support.soak import IS_SOAK

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]
#: What images and kernels go through is the same whatever a VM's network is.
ALL_OF_VMS = "not pull and not bundle and not image and not kernel and not register and not promote and not commit"
#: Where taps are made, taken back, found again, and taken back by force.
SHORT = " or ".join(f"point and {name}" for name in ("[start]", "[stop]", "row]", "running]"))
ONLY_VMS = ALL_OF_VMS if IS_SOAK else SHORT


@needs_taps
def test_crash_at_every_point_with_taps_leaves_nothing_on_the_host() -> None:
    """In a network namespace of its own: bridges, taps and rules are the kernel's."""
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/actors/test_actors_crashes.py"]
    suite += ["-k", ONLY_VMS]
    script = 'ip link set lo up && exec "$@"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", *suite],
        cwd=PROJECT,
        env={**os.environ, "CRASH_DRIVERS": "tap"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
