"""``banger vm stats``: live figures of running VMs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from banger.agent.facts import read_facts
from banger.commands import stats
from banger.core.codec import to_plain
from tests.support.cli import Cli
from tests.support.fake_api import Answer, FakeApi, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)

GIB = 1 << 30
FACTS = f"/v1/vms/{vm_json('web')['id']}/facts"


def _facts(busy_ms: int, *, boot: str = "a", uptime_ms: int = 65000) -> dict[str, Any]:
    text = (
        f"boot-id {boot}\nuptime {uptime_ms}\ncpus 2\ncpu {busy_ms} 0 0 {10000 - busy_ms} 0 0 0 0\nload 0.25 0 0\n"
        f"memory {4 * GIB} 0 {3 * GIB} 0 0 0\nprocesses 17 1\ndisk / overlay {8 * GIB} {6 * GIB} {6 * GIB} 1 1\n"
        "net lo - 65536 up 5 5\nnet eth0 - 1500 up 2048 4096\n"
    )
    plain: dict[str, Any] = to_plain(read_facts(text.encode()))
    return plain


def _later(facts: dict[str, Any], busy_ms: int, total_ms: int) -> dict[str, Any]:
    cpu = facts["cpu"]
    return {**facts, "cpu": {**cpu, "busy_ms": cpu["busy_ms"] + busy_ms, "total_ms": cpu["total_ms"] + total_ms}}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_INTERVAL_S", 0.0)


def test_stats_once_is_a_table_of_running_vms(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [vm_json("web")])
    before = _facts(100)
    api.in_turn("GET", FACTS, Answer(value=before), Answer(value=_later(before, 500, 1000)))
    ended = cli("vm", "stats", "--no-stream")
    assert ended.out == (
        "NAME  CPU     MEMORY             DISK               NET IN/OUT         LOAD  PROCESSES  UPTIME\n"
        "web   100.0%  1.0 GiB / 4.0 GiB  2.0 GiB / 8.0 GiB  2.0 KiB / 4.0 KiB  0.25  17         1m 05s\n"
    )
    assert (ended.err, ended.code) == ("", 0)
    assert api.calls[0].query == {"state": ["running"]}


def test_stats_of_a_guest_that_was_rebooted_meanwhile_have_no_cpu(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [vm_json("web")])
    api.in_turn("GET", FACTS, Answer(value=_facts(9000)), Answer(value=_facts(100, boot="b")))
    assert cli("vm", "stats", "--no-stream", "--json").json[0]["cpu_percent"] is None


def test_stats_json_has_what_the_daemon_said(cli: Cli, api: FakeApi) -> None:
    facts = _facts(100)
    api.on("GET", "/v1/vms/web", vm_json("web"))
    api.in_turn("GET", FACTS, Answer(value=facts), Answer(value=_later(facts, 0, 1000)))
    rows = cli("stats", "web", "--no-stream", "--json").json
    assert [(row["name"], row["cpu_percent"], row["memory"]) for row in rows] == [("web", 0.0, facts["memory"])]


def test_stats_of_a_vm_that_does_not_run_end_with_its_error(cli: Cli, api: FakeApi) -> None:
    error = {"kind": "conflict", "message": 'VM "db" is stopped, not running', "subject": "db"}
    api.on("GET", "/v1/vms/db", vm_json("db", state="stopped"))
    api.on("GET", FACTS, {"error": error}, status=409)
    ended = cli("vm", "stats", "db")  # and not forever
    assert ended.code == 4
    assert 'VM "db" is stopped, not running' in ended.err
    assert ended.out.splitlines()[1].split() == ["db", *["-"] * 7]


def test_stats_as_a_stream_are_a_line_for_each_look(cli: Cli, api: FakeApi) -> None:
    facts = _facts(100)
    error = {"kind": "not_found", "message": 'vm "web" not found', "subject": "web"}
    api.on("GET", "/v1/vms/web", vm_json("web"))
    seen = [facts, _later(facts, 10, 100), _later(facts, 110, 200)]
    api.in_turn("GET", FACTS, *(Answer(value=one) for one in seen), Answer(404, {"error": error}))
    ended = cli("vm", "stats", "web", "--json")
    looks = [json.loads(line) for line in ended.out.splitlines()]
    assert [look.get("cpu_percent") for look in looks] == [20.0, 200.0, None]
    assert looks[-1]["error"]["kind"] == "not_found"
    assert ended.code == 3


def test_stats_of_a_guest_whose_figures_make_no_sense_are_not_negative(cli: Cli, api: FakeApi) -> None:
    facts = _facts(100)
    memory = {**facts["memory"], "available_bytes": 9 * GIB}
    api.on("GET", "/v1/vms", [vm_json("web")])
    odd = {**_later(facts, 500, 100), "memory": memory}  # busier than there was time
    api.in_turn("GET", FACTS, Answer(value=facts), Answer(value=odd))
    row = cli("vm", "stats", "--no-stream").out.splitlines()[1]
    assert row.startswith("web   -    0 B / 4.0 GiB")


def test_stats_of_names_and_a_filter_are_a_usage_error(cli: Cli, api: FakeApi) -> None:
    assert cli("vm", "stats", "web", "--label", "a=b").code == 2
    assert not api.calls
