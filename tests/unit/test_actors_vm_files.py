"""What is read from a VM's logs."""

from __future__ import annotations

from pathlib import Path

from banger.actors.vm_files import VmFiles
from banger.layout import Layout


def test_console_that_was_cut_since_is_read_from_its_begin(tmp_path: Path) -> None:
    files = VmFiles(Layout.from_environment({"BANGER_HOME": str(tmp_path)}), "0123456789ab")
    files.directory.mkdir(parents=True)
    files.console_log.write_text("x" * 100)
    offset = files.console_size()
    with files.console_log.open("a") as guest:
        guest.write("banger: init 1\n")
    assert files.console_from(offset) == "banger: init 1\n"
    files.console_log.write_text("banger: ready 2\n")
    assert files.console_from(offset) == "banger: ready 2\n"
