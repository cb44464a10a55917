"""What a Firecracker that is in no jail finds, and where.

It is started in the directory of its sockets, and told disks and sockets by paths that begin there: a saved machine
opens the same paths again, and each one that goes on as it has others behind them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from banger.core.ports import Drive, VmmConfig
from banger.vmm.firecracker.saving_place import make_place

_DRIVES = "drives"
_THERE = 'cd "$0" && exec "$@"'


def places(config: VmmConfig) -> Mapping[Path, Path]:
    """Where it finds disks and sockets; all else is where it is. Pure."""
    drives = (one for one in config.devices if isinstance(one, Drive))
    return {config.run_dir: Path(), **{one.path: Path(_DRIVES, one.label) for one in drives}}


def prepare(config: VmmConfig, files: Mapping[str, str]) -> None:
    """Make its directories anew, with text files by name and the links to its disks. Raises ``OSError``."""
    make_place(config.vmm_log)
    for name, text in files.items():
        with os.fdopen(
            os.open(config.run_dir / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
    directory = config.run_dir / _DRIVES
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    for path, place in places(config).items():
        if place.parent.name == _DRIVES:
            (config.run_dir / place).symlink_to(path.absolute())


def entering(run_dir: Path) -> tuple[str, ...]:
    """The command that starts a program there."""
    return ("/bin/sh", "-c", _THERE, str(run_dir))
