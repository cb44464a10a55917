"""What a launch does to QEMU's command line when the process cannot inherit a socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.vmm.qemu.launch import listening_at
from tests.unit.test_vmm_arguments import line, parse, values


def test_monitor_without_an_inherited_socket_is_made_at_its_path() -> None:
    inherited = line()
    own = listening_at(Path("/run/a,b/qmp.sock"), inherited, 7)
    chardev = next(parse(value) for value in values(own, "-chardev") if "id=qmp" in value)
    assert (chardev["path"], chardev["server"], chardev["wait"]) == ("/run/a,b/qmp.sock", "on", "off")
    assert "fd" not in chardev
    assert [a for a, b in zip(inherited, own, strict=True) if a != b] == ["socket,id=qmp,fd=7,server=on,wait=off"]


def test_command_line_without_a_monitor_is_not_taken() -> None:
    with pytest.raises(AssertionError, match="no monitor"):
        listening_at(Path("/run/qmp.sock"), ["qemu"], 7)
