from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from banger.core.operation import Operation
from banger.posix.copying import copy_file


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no file system in memory to copy from")
def test_sparse_file_from_another_kind_of_file_system_is_copied_with_its_holes(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        source, target = Path(folder, "source"), tmp_path / "target"
        with source.open("wb") as file:
            for at in (0, 40 << 20):
                file.seek(at)
                file.write(os.urandom(1 << 20))
            file.truncate(64 << 20)
        copy_file(source, target, Operation("image.promote", "x"))
        assert target.read_bytes() == source.read_bytes()
        assert target.stat().st_blocks * 512 < 8 << 20
