"""What users and scripts see: tables, JSON, ids, errors, exit codes."""

from __future__ import annotations

import pytest
from freezegun import freeze_time

from banger.core.codec import to_plain
from banger.core.errors import EXIT_CODES, ErrorKind
from banger.core.wire.port_forward import PortForward
from banger.core.wire.vms import CreateVmBody
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi, as_read, event, image_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)
NOW = "2026-11-23T16:00:00Z"
VMS = [
    vm_json("web", spec={"ports": [{"guest_port": 80, "host_port": 8080, "host_address": "127.0.0.1"}]}),
    vm_json("db", id="111111111111", state="stopped", exit_reason="guest_panic", address=""),
    vm_json("old", id="222222222222", broken="disk.img is missing", image_name="python:3.12-slim"),
]


@freeze_time(NOW)
def test_vm_list_is_a_table(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", VMS)
    ended = cli("vm", "list")
    assert ended.out == (
        "NAME  STATE                        IMAGE             CPUS  MEMORY   ADDRESS    PORTS                   AGE\n"
        "web   running                      debian            2     512 MiB  10.0.2.15  127.0.0.1:8080->80/tcp  4h\n"
        "db    stopped (guest_panic)        debian            2     512 MiB  -          -                       4h\n"
        "old   broken: disk.img is missing  python:3.12-slim  2     512 MiB  10.0.2.15  -                       4h\n"
    )
    assert ended.err == ""


def test_list_json_is_what_the_daemon_said(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", VMS)
    assert cli("ps", "--json").json == cli("--json", "vm", "list").json == VMS


def test_list_quiet_is_ids(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", VMS)
    assert cli("vm", "list", "-q").out == "0a1b2c3d4e5f\n111111111111\n222222222222\n"


@pytest.mark.parametrize(
    ("paused_by", "shown"), [("user", "paused"), ("guard", "paused (no room)"), ("disk", "paused (disk failed)")]
)
def test_list_says_why_a_vm_stands_still_that_its_user_has_not_paused(
    cli: Cli, api: FakeApi, paused_by: str, shown: str
) -> None:
    api.on("GET", "/v1/vms", [vm_json("web", state="paused", paused_by=paused_by)])
    assert f"  {shown}  " in cli("vm", "list").out


def test_list_filters_are_the_daemons(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [])
    cli("vm", "list", "--state", "running", "--label", "a=b", "--label", "c=d")
    assert api.calls[0].query == {"state": ["running"], "label": ["a=b", "c=d"]}


@freeze_time(NOW)
def test_image_list_shows_size_source_and_users(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/images", [image_json(), image_json("", id="cccccccccccc", used_by=[])])
    assert cli("image", "list").out.splitlines() == [
        "NAME    ID            SIZE     SOURCE                       USED-BY  AGE",
        "debian  aaaaaaaaaaaa  2.0 GiB  docker.io/library/debian:12  web      3d",
        "-       cccccccccccc  2.0 GiB  docker.io/library/debian:12  -        3d",
    ]


def test_catalog_list_joins_both_kinds(cli: Cli, api: FakeApi) -> None:
    entry = {"name": "debian", "source": "mmdebstrap:bookworm", "summary": "Debian 12", "origin": "shipped"}
    api.on("GET", "/v1/catalog", {"images": [entry], "kernels": [{**entry, "name": "debian-cloud"}]})
    assert [line.split()[:2] for line in cli("catalog", "list").out.splitlines()[1:]] == [
        ["debian", "image"], ["debian-cloud", "kernel"],
    ]  # fmt: skip
    assert cli("catalog", "list", "-q").out == "debian\ndebian-cloud\n"


@freeze_time(NOW)
def test_vm_show_is_a_page_with_the_waterfall(cli: Cli, api: FakeApi) -> None:
    timings = [
        {"name": "disk", "started_s": 0.0, "duration_s": 0.5, "failed": False},
        {"name": "boot", "started_s": 0.5, "duration_s": 1.5, "failed": False},
    ]
    api.on("GET", "/v1/vms/web", vm_json("web", timings=timings))
    out = cli("vm", "show", "web").out
    assert out.startswith("web\n  id          0a1b2c3d4e5f\n  state       running (pid 4242, qemu on tcg)\n")
    assert "  image       debian (aaaaaaaaaaaa)\n" in out
    assert out.endswith(
        "Last start\n"
        "  disk  ████████························  500 ms\n"
        "  boot  ········████████████████████████  1.50 s\n"
    )


def test_vm_show_says_what_network_stands_in_for_that_of_the_vm_and_why(cli: Cli, api: FakeApi) -> None:
    spec = {"network": "user", "egress": "open"}
    api.on("GET", "/v1/vms/web", vm_json("web", spec=spec, network="slirp", network_reason="pasta is not installed"))
    out = cli("vm", "show", "web").out
    assert "  network     slirp instead of user (pasta is not installed)\n  egress      open\n" in out


def test_show_json_is_an_object_or_a_list(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms/web", vm_json("web"))
    api.on("GET", "/v1/vms/db", vm_json("db"))
    assert cli("vm", "show", "web", "--json").json["name"] == "web"
    assert [vm["name"] for vm in cli("vm", "show", "web", "db", "--json").json] == ["web", "db"]


def test_control_characters_never_reach_the_terminal(cli: Cli, api: FakeApi) -> None:
    evil = "x\x1b]0;owned\x07\x9b31m\ny"
    api.on("GET", "/v1/images", [image_json(source=evil)])
    api.on("GET", "/v1/images/a", image_json(source=evil))
    api.fail("GET", "/v1/images/b", 422, kind="invalid", message=evil, cause=evil, hint=evil)
    for ended in (cli("image", "list"), cli("image", "show", "a"), cli("image", "show", "b")):
        assert not {"\x1b", "\x07", "\x9b"} & set(ended.out + ended.err)


def test_pull_prints_the_name_and_its_progress_apart(cli: Cli, api: FakeApi) -> None:
    steps = [event("step_started", "fetch"), event("step_finished", "fetch", done=1 << 20, unit="bytes", elapsed_s=1.5)]
    api.long("POST", "/v1/images/pull", image_json(), *steps, event("note", message="unchanged"))
    ended = cli("image", "pull", "debian", "--size", "2G")
    assert (ended.out, ended.err) == ("debian\n", "  fetch  1.0 MiB  1.50 s\n  unchanged\n")
    assert api.calls[0].body == {"reference": "debian", "size_mib": 2048}
    assert (cli("image", "pull", "debian", "-q").out, cli("image", "pull", "debian", "-q").err) == (
        "aaaaaaaaaaaa\n",
        "",
    )
    assert cli("image", "pull", "debian", "--json").json == image_json()


def test_error_has_cause_and_hint(cli: Cli, api: FakeApi) -> None:
    api.fail(
        "DELETE", "/v1/images/debian", 409,
        kind="conflict", message='image "debian" is in use', cause="by web\nand db", hint="banger vm delete web db",
    )  # fmt: skip
    ended = cli("image", "delete", "debian")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == (
        'error: image "debian" is in use\n  cause: by web\n         and db\n  hint: banger vm delete web db\n'
    )


@pytest.mark.parametrize("kind", ErrorKind)
def test_kind_decides_the_exit_code(cli: Cli, api: FakeApi, kind: ErrorKind) -> None:
    api.fail("GET", "/v1/vms/x", 400, kind=kind.value, message="m")
    assert cli("vm", "show", "x").code == EXIT_CODES[kind]
    ended = cli("vm", "show", "x", "--json")
    assert (ended.code, ended.json["error"]["kind"], ended.err) == (EXIT_CODES[kind], kind.value, "")


def test_several_objects_are_reported_each_on_its_own(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/vms/a/stop", vm_json("a"))
    api.fail("POST", "/v1/vms/b/stop", 404, kind="not_found", message='VM "b" not found')
    api.fail("POST", "/v1/vms/c/stop", 409, kind="conflict", message='VM "c" is busy')
    api.long("POST", "/v1/vms/d/stop", vm_json("d"))
    ended = cli("vm", "stop", "a", "b", "c", "d", "--timeout", "1m")
    assert (ended.code, ended.out) == (3, "a\nd\n")
    assert ended.err == 'error: VM "b" not found\nerror: VM "c" is busy\n'
    assert api.calls[0].query == {"timeout_s": ["60.0"], "wait": ["true"]}
    kinds = [item.get("error", {}).get("kind") for item in cli("vm", "stop", "a", "b", "--json").json]
    assert kinds == [None, "not_found"]


def test_all_selects_by_state_and_label(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", VMS[:2])
    api.long("POST", "/v1/vms/0a1b2c3d4e5f/kill", vm_json("web"))
    ended = cli("vm", "kill", "--all", "--label", "a=b")
    assert (ended.code, ended.out) == (0, "web\n")
    assert api.calls[0].query == {"label": ["a=b"]}


def test_nothing_selected_is_no_failure(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [])
    ended = cli("vm", "delete", "--all")
    assert (ended.code, ended.out, ended.err) == (0, "", "no VM matches\n")
    assert cli("vm", "delete", "--all", "--json").json == []


def test_create_sends_the_whole_spec(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_VM_MEMORY_MIB", "768")
    monkeypatch.setenv("FROM_HERE", "yes")
    api.long("POST", "/v1/vms", vm_json("web"))
    cli(
        "vm", "create", "alpine", "--name", "web", "--start", "--cpus", "3", "--disk", "2G", "-e", "A=b=c",
        "-e", "FROM_HERE", "-e", "NOT_SET_HERE", "-p", "8080:80", "--init", "image", "--label", "k=v",
    )  # fmt: skip
    body = as_read(CreateVmBody, api.calls[0].body)
    assert (body["name"], body["start"]) == ("web", True)
    spec = body["spec"]
    assert (spec["image"], spec["cpus"], spec["memory_mib"], spec["disk_mib"]) == ("alpine", 3, 768, 2048)
    assert spec["env"] == ["A=b=c", "FROM_HERE=yes"]
    assert spec["ports"] == to_plain([PortForward(80, 8080)])
    assert (spec["init"], spec["labels"], spec["ephemeral"]) == ("image", {"k": "v"}, False)


def test_create_leaves_sizes_that_nobody_set_to_the_image(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/vms", vm_json("web"))
    cli("vm", "create", "alpine")
    assert api.calls[0].body["spec"] == {"image": "alpine"}


def test_kernel_import_sends_absolute_paths(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    api.long("POST", "/v1/kernels/import", {"id": "k", "name": "mine"})
    assert cli("kernel", "import", "mine", "vmlinuz", "--modules", "lib", "--cmdline", "quiet").out == "mine\n"
    assert api.calls[0].body == {
        "name": "mine", "kernel_path": "/usr/vmlinuz", "modules_path": "/usr/lib", "cmdline": "quiet",
    }  # fmt: skip


def test_kernel_pull_takes_several(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/kernels/pull", {"id": "k", "name": "debian-cloud"})
    assert cli("kernel", "pull", "debian-cloud", "other").code == 0
    assert sorted(call.body["name"] for call in api.calls) == ["debian-cloud", "other"]  # they are pulled side by side


def test_logs_are_passed_on_byte_for_byte(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms/web/logs", data=b"one\r\ntwo")
    assert cli("vm", "logs", "web", "--tail", "2", "--source", "vmm").out.replace("\r\n", "\n") == "one\ntwo"
    assert api.calls[0].query == {"source": ["vmm"], "tail": ["2"]}
    assert cli("vm", "logs", "web", "--json").out == '{"line": "one"}\n{"line": "two"}\n'


def test_operation_follow_prints_an_event_a_line_as_json(cli: Cli, api: FakeApi) -> None:
    path = "/v1/operations/0p/events"
    api.on("GET", path, lines=[{"event": event("started")}, {"event": event("finished")}, {"result": None}])
    assert [line[:18] for line in cli("op", "follow", "0p", "--json").out.splitlines()] == [
        '{"kind": "started"',
        '{"kind": "finished',
    ]
    assert cli("op", "follow", "0p").code == 0


def test_operation_show_draws_its_steps(cli: Cli, api: FakeApi) -> None:
    steps = [{"name": "fetch", "started_s": 0, "duration_s": 2.0, "failed": True}]
    api.on(
        "GET", "/v1/operations/0p",
        {"id": "0p", "kind": "image.pull", "subject": "debian", "state": "failed", "elapsed_s": 2.0, "steps": steps,
         "created_at": "2026-11-23T12:00:00.000Z", "error": {"message": "no route", "cause": "", "hint": "try"}},
    )  # fmt: skip
    out = cli("op", "show", "0p").out
    assert out.startswith("image.pull debian\n")
    assert "  error       no route\n" in out
    assert out.endswith("2.00 s  failed\n")


def test_system_df_and_reconcile(cli: Cli, api: FakeApi) -> None:
    usage = {
        "images_bytes": 1 << 30,
        "kernels_bytes": 0,
        "vms_bytes": 5,
        "snapshots_bytes": 3 << 20,
        "blobs_bytes": 0,
        "staging_bytes": 0,
        "free_bytes": 1 << 40,
    }
    api.on("GET", "/v1/system/df", usage)
    told = cli("system", "df").out
    assert "  images     1.0 GiB\n" in told
    assert "  snapshots  3.0 MiB\n" in told
    api.long("POST", "/v1/system/reconcile", {"adopted": ["web"], "stopped": [], "cleaned": [], "removed": []})
    assert cli("system", "reconcile").out == "  adopted  web\n"


def test_config_needs_no_daemon(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANGER_VM_CPUS", "4")
    rows = {row["key"]: row for row in cli("config", "show", "--json").json}
    assert (rows["vm.cpus"]["value"], rows["vm.cpus"]["origin"]) == (4, "BANGER_VM_CPUS")
    assert "vm.cpus" in cli("config", "show").out
    assert cli("config", "path", "--json").json["socket"].endswith("/run/banger.sock")


def test_bug_is_reported_without_a_traceback(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms", [{"no": "id"}])
    ended = cli("vm", "list", "-q")
    assert ended.code == 1
    assert "KeyError: 'id'" in ended.err
    assert "--debug" in ended.err
    assert "Traceback" not in ended.err
    assert "Traceback" in cli("vm", "list", "-q", "--debug").err


def test_interrupt_exits_130(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("banger.client.Client.get", interrupted)
    assert cli("vm", "list").code == 130
