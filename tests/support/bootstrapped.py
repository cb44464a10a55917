"""What an image that was bootstrapped from the host's packages is to be."""

from __future__ import annotations

import subprocess
from pathlib import Path


def check_debian(rootfs: Path) -> None:
    """A clean file system, of a release, without manuals."""
    assert "VERSION_CODENAME" in _debugfs(rootfs, "cat /usr/lib/os-release")
    assert "man1" not in _debugfs(rootfs, "ls /usr/share/man")
    checked = subprocess.run(["e2fsck", "-fn", rootfs], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def _debugfs(rootfs: Path, request: str) -> str:
    return subprocess.run(["debugfs", "-R", request, rootfs], capture_output=True, text=True, check=True).stdout
