"""The programs that banger is measured against, each installed into a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "bench"


def installed(package: str) -> Path:
    """The ``bin`` directory of an environment that holds just ``package``, from the cache or made now."""
    environment = CACHE / package
    ready = environment / ".ready"
    if not ready.exists():
        print(f"installing {package} into {environment}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "--quiet", package], check=True)
        ready.touch()
    return environment / "bin"
