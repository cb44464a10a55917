"""The guest agent's own code, fed with nonsense under the address and undefined behaviour sanitizers.

``FUZZ_SECONDS`` sets the time: ``make fuzz`` has ten minutes, and another seed every day, which is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.agent import SOURCES

SECONDS = int(os.environ.get("FUZZ_SECONDS", "10"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="not installed: gcc")
@pytest.mark.timeout(SECONDS + 200)
def test_agent_survives_what_no_host_would_send(tmp_path: Path) -> None:
    build = tmp_path / "build"
    made = subprocess.run(
        ["make", "--silent", "--jobs", "2", "--directory", SOURCES, f"BUILD={build}", f"{build}/fuzz"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "asan" in made.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert made.returncode == 0, made.stderr
    seed = os.environ.get("FUZZ_SEED") or ("1" if SECONDS < 60 else datetime.now(UTC).strftime("%Y%m%d"))
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run([build / "fuzz", str(SECONDS), seed, place], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"seed {seed}; the last input is {place}/last\n{done.stderr[-8000:]}"
    print(f"seed {seed}: {done.stdout.strip()}")
