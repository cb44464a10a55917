"""Giving a VM another disk, and keeping the one that it had until somebody decides which of the two stays.

A VM's disk is some files in its directory. The old ones get second names in a directory beside them, all of them before
the first new one takes a place: so the VM has a disk at every instant, and what it had can be put back, however far the
change has come. Who does this writes it to the VM's ledger first.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from banger.core.crashpoints import crashpoint
from banger.host import publish
from banger.layout import Layout
from banger.posix.files import sync_path

#: In a VM's directory, while it is not decided.
_KEPT, _UNFINISHED = "kept-disk", "kept-disk.new"


def change(vm_dir: Path, new: Path) -> None:
    """Put the files in the directory ``new``, of the same file system, in the place of those of the same names.

    Nobody uses either. The old ones are kept until :func:`put_back` or :func:`give_up`.
    """
    names = sorted(path.name for path in new.iterdir())
    _keep(vm_dir, names)
    crashpoint("vm.rewind:disk-kept")
    for name in names:
        (new / name).replace(vm_dir / name)
        crashpoint("vm.rewind:file-changed")
    sync_path(vm_dir)
    crashpoint("vm.rewind:disk-changed")


def is_kept(vm_dir: Path) -> bool:
    """It is not decided yet."""
    return (vm_dir / _KEPT).is_dir()


def put_back(vm_dir: Path) -> None:
    """Decide for the old disk, whatever became of the new one. Idempotent, and nothing if there is none."""
    kept, unfinished = vm_dir / _KEPT, vm_dir / _UNFINISHED
    if unfinished.exists():
        shutil.rmtree(unfinished)
    if not kept.exists():
        return
    for path in sorted(kept.iterdir()):
        path.replace(vm_dir / path.name)  # of two names of one file, both stay (rename(2))
        crashpoint("vm.rewind:file-put-back")
    sync_path(vm_dir)
    shutil.rmtree(kept)
    sync_path(vm_dir)


def give_up(vm_dir: Path, layout: Layout) -> Path | None:
    """Decide for the new disk, in one step. What was kept is trash then, which is returned to be removed."""
    kept = vm_dir / _KEPT
    return publish.take_away(kept, layout) if kept.exists() else None


def _keep(vm_dir: Path, names: list[str]) -> None:
    unfinished = vm_dir / _UNFINISHED
    unfinished.mkdir(mode=0o700)
    for name in names:
        if (vm_dir / name).exists():
            os.link(vm_dir / name, unfinished / name)
    sync_path(unfinished)
    crashpoint("vm.rewind:disk-linked")
    unfinished.rename(vm_dir / _KEPT)
    sync_path(vm_dir)
