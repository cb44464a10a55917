"""Snapshots on the command line: what is asked of the daemon, what is printed, how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from banger.core import clock
from banger.core.codec import to_plain
from banger.core.models import Snapshot
from banger.core.wire.vm_spec import VmSpec
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi

pytest_plugins = ("tests.support.cli_fixtures",)

ROW: dict[str, Any] = {
    **to_plain(
        Snapshot(
            id="0123456789ab", name="ready", vm_id="ba9876543210", vm_name="web", image_id="i", kernel_id="k",
            spec=VmSpec("debian", cpus=1, memory_mib=512, disk_mib=10240), storage="overlay", created_at=clock.now(),
            vmm="qemu", vmm_version="7.2.0", cpu="a CPU", accelerator="tcg", memory_mib=512,
            memory_bytes=100 << 20, disk_bytes=28 << 20,
        )
    ),
    "image_name": "debian", "kernel_name": "debian-6.1", "parent_name": "", "vms": ["again"], "broken": "",
}  # fmt: skip
NOT_FOUND = {"kind": "not_found", "message": 'vm "ready" not found', "subject": "ready"}


@pytest.mark.parametrize("command", [("vm", "snapshot", "create"), ("snapshot", "create")])
def test_create_sends_what_was_typed_and_prints_the_name(cli: Cli, api: FakeApi, command: tuple[str, ...]) -> None:
    api.long("POST", "/v1/vms/web/snapshots", ROW)
    ended = cli(*command, "web", "--name", "ready", "--stop")
    assert (ended.code, ended.out) == (0, "ready\n")
    assert api.calls[0].body == {"name": "ready", "stop": True}


def test_list_tells_what_a_snapshot_holds_and_takes(cli: Cli, api: FakeApi) -> None:
    disk_only = {**ROW, "id": "1", "name": "cold", "memory_mib": 0, "memory_bytes": 0}
    broken = {**ROW, "id": "2", "name": "odd", "broken": "/x is missing"}
    api.on("GET", "/v1/snapshots", [ROW, disk_only, broken])
    _, ready, cold, odd = cli("snapshot", "list").out.splitlines()
    assert ("memory and disk" in ready, "128 MiB" in ready, "web" in ready) == (True, True, True)
    assert ("  disk  " in cold, "28 MiB" in cold) == (True, True)
    assert "broken: /x is missing" in odd


def test_show_tells_what_it_needs_and_what_goes_on_from_it(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/snapshots/ready", ROW)
    page = cli("snapshot", "show", "ready").out
    for words in ("memory and disk", "qemu 7.2.0 on tcg", "a CPU", "again", "web (ba9876543210)", "512 MiB"):
        assert words in page


def test_show_of_a_stopped_vms_says_that_what_is_made_from_it_boots(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/snapshots/ready", {**ROW, "memory_mib": 0, "vmm": "", "accelerator": "", "memory_bytes": 0})
    page = cli("snapshot", "show", "ready").out
    assert "disk only: the VM was stopped, and what is made from it boots" in page
    assert "needs" not in page


def test_restore_sends_name_and_ports(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/snapshots/ready/restore", {"id": "1", "name": "again"})
    ended = cli("vm", "restore", "ready", "--name", "again", "-p", "8080:80")
    assert (ended.code, ended.out) == (0, "again\n")
    assert api.calls[0].body == {"name": "again", "ports": [{"guest_port": 80, "host_port": 8080}]}


def test_fork_of_a_vm_prints_the_names_of_all(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms/web", {"id": "1", "name": "web"})
    api.long("POST", "/v1/vms/web/fork", [{"id": "2", "name": "a-1"}, {"id": "3", "name": "a-2"}])
    ended = cli("vm", "fork", "web", "-n", "2", "--name", "a-{n}")
    assert (ended.code, ended.out) == (0, "a-1\na-2\n")
    assert api.calls[-1].body == {"count": 2, "name": "a-{n}"}


def test_fork_of_what_is_no_vm_is_one_of_a_snapshot(cli: Cli, api: FakeApi) -> None:
    api.fail("GET", "/v1/vms/ready", 404, **NOT_FOUND)
    api.on("GET", "/v1/snapshots/ready", ROW)
    api.long("POST", "/v1/snapshots/ready/fork", [{"id": "2", "name": "web-1"}])
    assert cli("vm", "fork", "ready").out == "web-1\n"


def test_fork_of_what_is_neither_names_both(cli: Cli, api: FakeApi) -> None:
    api.fail("GET", "/v1/vms/ready", 404, **NOT_FOUND)
    api.fail("GET", "/v1/snapshots/ready", 404, **NOT_FOUND)
    ended = cli("vm", "fork", "ready")
    assert ended.code == 3
    assert 'neither a VM nor a snapshot "ready"' in ended.err
    assert "banger vm list; banger snapshot list" in ended.err


@pytest.mark.parametrize("snapshot", ["", "ready"])
def test_rewind_sends_the_snapshot_if_one_was_named(cli: Cli, api: FakeApi, snapshot: str) -> None:
    api.long("POST", "/v1/vms/web/rewind", {"id": "1", "name": "web"})
    ended = cli("vm", "rewind", "web", *filter(None, [snapshot]))
    assert (ended.code, ended.out) == (0, "web\n")
    assert api.calls[0].body == ({"snapshot": snapshot} if snapshot else {})


def test_delete_reports_on_each(cli: Cli, api: FakeApi) -> None:
    api.long("DELETE", "/v1/snapshots/ready", {"id": "1", "name": "ready"})
    error = {"kind": "conflict", "message": 'snapshot "busy" is in use', "cause": "a VM is being made from it now"}
    api.fail("DELETE", "/v1/snapshots/busy", 409, **error)
    ended = cli("snapshot", "delete", "ready", "busy")
    assert (ended.code, ended.out) == (4, "ready\n")
    assert "a VM is being made from it now" in ended.err


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ((), {}),
        (("--keep", "3", "--vm", "web"), {"keep": 3, "vm": "web"}),
        (("--keep", "0", "--older-than", "12h", "-n"), {"keep": 0, "older_than_s": 43200.0, "dry_run": True}),
    ],
)
def test_prune_sends_its_rule_and_tells_what_it_frees(
    cli: Cli, api: FakeApi, typed: tuple[str, ...], sent: dict[str, Any]
) -> None:
    api.long("POST", "/v1/system/prune", {"removed": ["snapshot a"], "kept": [], "freed_bytes": 3 << 20})
    ended = cli("snapshot", "prune", *typed)
    assert (ended.code, ended.out) == (0, "snapshot a\n")
    assert f"{'would free' if 'dry_run' in sent else 'freed'} 3.0 MiB" in ended.err
    assert api.calls[0].body == {"nouns": ["snapshot"], **sent}


@pytest.mark.parametrize("asked", [False, True])
def test_system_prune_counts_snapshots_only_when_asked(cli: Cli, api: FakeApi, asked: bool) -> None:
    api.long("POST", "/v1/system/prune", {"removed": [], "kept": [], "freed_bytes": 0})
    cli("system", "prune", *(["--snapshots"] if asked else []))
    assert ("snapshot" in api.calls[0].body.get("nouns", [])) is asked


def test_export_names_the_file_and_warns_of_secrets(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    api.long("POST", "/v1/snapshots/ready/export", {"path": "/x/file", "size_bytes": 1 << 20})
    ended = cli("snapshot", "export", "ready", "/x/file")
    assert (ended.code, ended.out) == (0, "/x/file\n")
    assert "passwords and keys" in ended.err
    assert api.calls[0].body == {"path": "/x/file"}


def test_import_sends_the_file_and_prints_the_name(cli: Cli, api: FakeApi) -> None:
    api.long("POST", "/v1/snapshots/import", ROW)
    ended = cli("snapshot", "import", "/x/file", "--name", "ready")
    assert (ended.code, ended.out) == (0, "ready\n")
    assert api.calls[0].body == {"path": "/x/file", "name": "ready"}
