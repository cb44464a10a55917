"""Probes for programs that not every host has."""

from __future__ import annotations

import os
import shutil


def missing_programs(*names: str) -> list[str]:
    """Those that are neither on ``PATH`` nor where administrators' programs are."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return [name for name in names if shutil.which(name, path=path) is None]
