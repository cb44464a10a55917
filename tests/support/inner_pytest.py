"""Runs of pytest in a process of its own, under the rules of these tests, on a test file that is written for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.command import PROJECT

#: What the pytest that runs this test has set for itself.
_OUTER = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT")


def run_pytest(directory: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of ``source``, which is written to ``directory``, in the order of the file."""
    file = directory / "test_inner.py"
    file.write_text(source)
    plugins = [word for name in ("tests.conftest", "no:cacheprovider", "no:randomly") for word in ("-p", name)]
    settings = ["-c", str(PROJECT / "pyproject.toml"), f"--rootdir={directory}"]
    environment = {name: value for name, value in os.environ.items() if name not in _OUTER}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *plugins, *options, str(file)],
        cwd=directory,
        env={**environment, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
