"""Room that is set aside for making room."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from banger.actors import messages
from banger.actors.messages import Command
from banger.core.units import MIB
from banger.host import reserve
from banger.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    found.data.mkdir()
    return found


def _free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))


def test_reserve_is_set_aside_where_there_is_plenty_and_given_up_where_there_is_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = layout.data / "reserve"
    _free(monkeypatch, 63 * MIB)
    reserve.set_aside(layout)
    assert not file.exists()
    _free(monkeypatch, 65 * MIB)
    reserve.set_aside(layout)
    assert file.stat().st_blocks * 512 >= reserve.RESERVE_BYTES
    reserve.set_aside(layout)
    _free(monkeypatch, 3 * MIB)
    reserve.give_up(layout)
    assert file.exists()
    _free(monkeypatch, MIB)
    reserve.give_up(layout)
    assert not file.exists()
    reserve.give_up(layout)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_reserve_is_given_up_where_blocks_are_free_but_inodes_or_a_quota_are_used_up(
    layout: Layout, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _free(monkeypatch, 65 * MIB)
    reserve.set_aside(layout)
    reserve.give_up(layout)
    assert [path.name for path in layout.data.iterdir()] == ["reserve"]

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, "none left")

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    reserve.give_up(layout)
    assert not list(layout.data.iterdir())


def test_reserve_that_cannot_be_made_is_no_failure(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    layout.data.rmdir()
    _free(monkeypatch, 65 * MIB)
    reserve.set_aside(layout)
    reserve.give_up(layout)
    assert not layout.data.exists()


def test_what_frees_room_or_ends_what_takes_it_may_have_the_reserve() -> None:
    commands = [one for one in vars(messages).values() if isinstance(one, type) and issubclass(one, Command)]
    assert {one.__name__ for one in commands if one.makes_room} == {
        "DeleteImage", "DeleteKernel", "DeleteSnapshot", "DeleteTemplate", "DeleteVm", "KillVm", "PauseVm", "Prune", "RemoveDriver",
        "StopVm",
    }  # fmt: skip
