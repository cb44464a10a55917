"""The directory to which a machine is saved: ours, with two files that its VMM may write to for so long."""

from __future__ import annotations

import shutil
from pathlib import Path

from banger.vmm.saved_files import SavedFiles


def saving_place(vmm_log: Path) -> Path:
    """Where the machine with that log is saved to."""
    return vmm_log.with_name("saving")


def make_place(vmm_log: Path) -> None:
    """Make that directory anew. A VMM that is shown it can open the files that it knows of, and make none."""
    place = saving_place(vmm_log)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    place.chmod(0o711)


def is_unfinished(vmm_log: Path) -> bool:
    """There is something of a save that nobody ended."""
    files = SavedFiles(saving_place(vmm_log))
    return files.memory.exists() or files.devices.exists()


def forget(vmm_log: Path) -> None:
    """Remove what there is of a save."""
    files = SavedFiles(saving_place(vmm_log))
    for path in (files.memory, files.devices):
        path.unlink(missing_ok=True)
