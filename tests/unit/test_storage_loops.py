"""Which loop devices there are, as the kernel tells while they come and go."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from banger.layout import Layout
from banger.storage import loop_devices
from banger.storage.device_mapper import DeviceMapper
from banger.storage.loop_devices import LoopDevices
from banger.storage.objects import StorageObjects


def answering(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def ioctl(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(loop_devices.fcntl, "ioctl", ioctl)


@pytest.mark.parametrize(("number", "found"), [(errno.ENXIO, []), (errno.EACCES, ["/dev/loop0"])])
def test_device_that_is_being_cleared_is_nobodys_and_no_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: list[str]
) -> None:
    """When its last user has let go of it, for a moment the kernel tells its file, and nothing else."""
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path / "home")})
    told = tmp_path / "sys" / "loop0" / "loop" / "backing_file"
    told.parent.mkdir(parents=True)
    told.write_text(f"{layout.data}/vms/0123456789ab/changes\n")
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "loop0").touch()
    answering(monkeypatch, number)
    loops = LoopDevices(dev, tmp_path / "sys")
    objects = StorageObjects(layout, "0123456789ab", DeviceMapper(sys_block=tmp_path / "sys"), loops)
    assert [one.key.replace(str(dev), "/dev") for one in objects()] == found
