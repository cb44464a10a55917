"""A VM that is down and about to be started again is neither running nor stopped, wherever somebody asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from banger.api.vms import _reached
from banger.core import clock
from banger.core.errors import BangerError
from banger.core.models import Restarts, Vm, VmState
from banger.core.states import check_running
from banger.core.wire.vm_spec import VmSpec
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)

DOWN = Vm("feedfacecafe", "web", VmSpec("debian"), VmState.STOPPED, clock.now())
COMING = replace(DOWN, restarts=Restarts(due_at=clock.now()), reason="the guest rebooted")


def test_wait_does_not_take_it_for_stopped() -> None:
    assert _reached(DOWN, "stopped")
    assert not _reached(COMING, "stopped")
    assert not _reached(COMING, "running")


def test_command_in_it_is_told_to_wait() -> None:
    with pytest.raises(BangerError, match="is being started again") as caught:
        check_running(COMING)
    assert caught.value.hint == "banger vm wait --until running web"
    with pytest.raises(BangerError, match="is stopped"):
        check_running(DOWN)


def test_prune_leaves_it_alone(cli: Cli, api: FakeApi) -> None:
    coming = vm_json("web", state="stopped", restarts={"count": 1, "tries": 1, "due_at": "2026-05-01T10:00:00Z"})
    api.on("GET", "/v1/vms", [coming, vm_json("db", id="111111111111", state="stopped")])
    api.long("DELETE", "/v1/vms/111111111111", {"id": "111111111111", "name": "db"})
    assert cli("vm", "prune", "--yes").code == 0
    assert api.asked("DELETE", f"/v1/vms/{coming['id']}") == []


def test_stop_of_all_keeps_it_down(cli: Cli, api: FakeApi) -> None:
    coming = vm_json("web", state="stopped", restarts={"count": 1, "tries": 1, "due_at": "2026-05-01T10:00:00Z"})
    api.on("GET", "/v1/vms", [coming, vm_json("db", id="111111111111", state="stopped")])
    api.long("POST", f"/v1/vms/{coming['id']}/stop", vm_json("web", state="stopped"))
    assert cli("vm", "stop", "--all").code == 0
    assert len(api.asked("POST", f"/v1/vms/{coming['id']}/stop")) == 1
