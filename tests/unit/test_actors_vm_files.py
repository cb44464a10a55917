"""What is read from a VM's logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.actors.vm_files import VmFiles
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm, VmSpec, VmState
from banger.guest.access import guest_access
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


@pytest.mark.parametrize("left", [None, b"", b"x" * 31, b"x" * 300], ids=["gone", "empty", "short", "long"])
def test_host_key_that_was_lost_or_damaged_is_made_anew_at_the_next_start(tmp_path: Path, left: bytes | None) -> None:
    """A power cut may leave an empty file: the VM must not be lost with it."""
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    vm = Vm("0123456789ab", "web", VmSpec("debian"), VmState.RUNNING, clock.now())
    files = VmFiles(layout, vm.id)
    files.make()
    seed, known = files.host_key_seed(), guest_access(layout, vm).host_key
    files.make()
    assert files.host_key_seed() == seed
    files.host_key_seed_file.unlink()
    if left is not None:
        files.host_key_seed_file.write_bytes(left)
    with pytest.raises(BangerError, match='host key of VM "web"') as caught:
        guest_access(layout, vm)
    assert (caught.value.kind, caught.value.hint) == (ErrorKind.INVALID, "banger vm restart web")
    assert len(files.host_key_seed()) == 32
    assert files.host_key_seed_file.stat().st_mode & 0o777 == 0o600
    assert guest_access(layout, vm).host_key != known
