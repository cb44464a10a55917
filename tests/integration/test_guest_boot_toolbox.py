"""The toolbox from this host's real programs, and from its distribution's packages when the host has none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.operation import Operation
from banger.guest import programs
from banger.guest.hostkey import dropbear_key, public_key
from banger.guest.programs import TOOLS, check_applets, find_programs
from banger.guest.toolbox import APPLETS
from banger.kernels import packages


def test_dropbear_reads_the_host_key_that_was_made_for_it(tmp_path: Path) -> None:
    dropbearkey = shutil.which("dropbearkey")
    if not dropbearkey:
        pytest.skip("needs dropbearkey")
    seed = bytes(range(32))
    (tmp_path / "key").write_bytes(dropbear_key(seed))
    shown = subprocess.run(
        [dropbearkey, "-y", "-f", tmp_path / "key"], capture_output=True, text=True, check=True
    ).stdout
    assert public_key(seed) in shown


def test_programs_that_the_host_lacks_come_from_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = CancelToken()
    if not packages.is_available(token):
        pytest.skip("needs apt")
    try:
        packages.show("dropbear-bin", token)
    except Exception as error:  # noqa: BLE001  # whatever it is, there is nothing to test then
        pytest.skip(str(error))
    real = programs.collect
    monkeypatch.setattr(programs, "collect", lambda roots: _without_tools(real, roots))
    operation = Operation("vm.start", "x")
    found = find_programs(tmp_path, operation)
    assert set(found.files) >= {tool.path for tool in TOOLS}
    assert tmp_path in found.busybox.parents
    check_applets(found.busybox, APPLETS, operation)
    assert [step.name for step in operation.steps] == ["download toolbox"]
    assert find_programs(tmp_path, Operation("vm.start", "x")).files == found.files


def _without_tools(collect, roots):  # type: ignore[no-untyped-def]
    """A host that has libraries, but none of the programs."""
    found = collect(roots)
    if roots == [Path("/")]:
        return programs.Programs(missing=[tool.name for tool in TOOLS])
    return found
