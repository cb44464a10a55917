"""Firecracker for tests: the genuine one that the test set-up has fetched, and releases that only look like one."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.fetch_firecracker import SUMS, TARGET, VERSION, WHY_NOT
from tests.support.elf import static_hello

__all__ = ["VERSION", "binaries", "make_release", "programs_of", "real_firecracker", "release_archive"]


def binaries() -> tuple[Path, Path]:
    """The paths of a genuine Firecracker and its jailer; the test is skipped where there is none."""
    found = TARGET / "firecracker", TARGET / "jailer"
    if not all(path.exists() for path in found):
        why = WHY_NOT.read_text(encoding="utf-8").strip() if WHY_NOT.exists() else "run make setup-test"
        pytest.skip(f"no Firecracker {VERSION} to test with: {why}")
    for path in found:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == SUMS[path.name], f"{path} is not the genuine one"
    return found


@pytest.fixture(scope="session")
def real_firecracker() -> tuple[Path, Path]:
    """As :func:`binaries`."""
    return binaries()


def programs_of(version: str, *, jailer: str = "") -> Mapping[str, bytes]:
    """Two programs that tell a version, and nothing else."""
    return {
        "firecracker": static_hello(f"Firecracker v{version}\n\n"),
        "jailer": static_hello(f"Jailer v{jailer or version}\n"),
    }


def release_archive(version: str, programs: Mapping[str, bytes] | None = None, architecture: str = "x86_64") -> bytes:
    """An archive as the project publishes it."""
    buffer = io.BytesIO()
    top = f"release-v{version}-{architecture}"
    named = {f"{name}-v{version}-{architecture}": data for name, data in (programs or programs_of(version)).items()}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {
            **named,
            f"firecracker-v{version}-{architecture}.debug": b"symbols",
            "LICENSE": b"x",
        }.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue())


def make_release(directory: Path, version: str, **options: str) -> Path:
    """A directory with the two programs."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in programs_of(version, **options).items():
        (directory / name).write_bytes(data)
        (directory / name).chmod(0o755)
    return directory
