"""A ``tmp_path`` without a disk, for tests that make dozens of small stores which sync for nobody; import it to use it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def place() -> Path:
    """The session's directory on a file system in memory, or on a disk if the host has none."""
    return Path(os.environ["TMPDIR"]).with_name("memory").resolve()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory of the test's own there."""
    with tempfile.TemporaryDirectory(prefix="t-", dir=place()) as directory:
        yield Path(directory)
