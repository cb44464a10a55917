"""``banger vm why``: what it asks, what it prints, and the file that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Cli
from tests.support.fake_api import FakeApi

pytest_plugins = ("tests.support.cli_fixtures",)

WHY = {
    "vm": {"id": "feedfacecafe", "name": "web", "state": "gone", "timings": []},
    "why": "it did not come up: the kernel's file is damaged",
    "next": "use another kernel: --kernel debian-cloud",
    "console": ["Decoding failed", " -- System halted"],
    "evidence": {
        "id": "0123456789ab", "words": "the kernel's file is damaged", "cause": "after 2 s under emulation\nDecoding failed",
        "accelerator": "tcg", "versions": {"vmm": "QEMU 7.2"}, "exit_reason": "", "kernel": {"name": "mine", "id": "beef"},
    },
    "error_counters": {"block_data.execute_fails": 2},
    "others": [{"id": "ba9876543210", "words": "another", "at": "2026-11-28T10:00:00Z"}],
}  # fmt: skip


def test_why_of_a_vm_that_is_gone_is_one_page_with_the_next_step(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/vms/web/why", WHY)
    ended = cli("vm", "why", "web")
    assert ended.code == 0
    for words in (
        "kernel's file is damaged",
        "System halted",
        "tcg (QEMU 7.2)",
        "mine (beef)",
        "ba9876543210",
        "gone",
        "execute_fails  2",
    ):
        assert words in ended.out
    assert ended.out.endswith("next: use another kernel: --kernel debian-cloud\n")


def test_last_asks_for_the_newest_record(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/evidence", [{"id": "0123456789ab"}, {"id": "ba9876543210"}])
    api.on("GET", "/v1/vms/0123456789ab/why", WHY)
    assert "kernel's file is damaged" in cli("vm", "why", "--last").out


def test_last_of_nothing_is_not_found(cli: Cli, api: FakeApi) -> None:
    api.on("GET", "/v1/evidence", [])
    ended = cli("vm", "why", "--last")
    assert ended.code == 3
    assert "nothing is kept" in ended.err


@pytest.mark.parametrize("arguments", [(), ("--last", "web"), ("a", "b", "--bundle", "x")])
def test_what_makes_no_sense_is_a_usage_error(cli: Cli, api: FakeApi, arguments: tuple[str, ...]) -> None:
    assert cli("vm", "why", *arguments).code == 2


def test_bundle_is_written_for_its_owner_alone_and_never_over_a_file(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    api.on("GET", "/v1/vms/web/why/archive", data=b"\x1f\x8bpacked")
    target = tmp_path / "report.tar.gz"
    ended = cli("vm", "why", "web", "--bundle", str(target))
    assert (ended.code, ended.out) == (0, f"{target}\n")
    assert target.read_bytes() == b"\x1f\x8bpacked"
    assert target.stat().st_mode & 0o777 == 0o600
    again = cli("vm", "why", "web", "--bundle", str(target))
    assert again.code == 4
    assert "already exists" in again.err
    assert target.read_bytes() == b"\x1f\x8bpacked"


def test_bundle_of_nobody_leaves_no_file(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    api.fail("GET", "/v1/vms/web/why/archive", 404, kind="not_found", message='vm "web" not found', subject="web")
    assert cli("vm", "why", "web", "--bundle", str(tmp_path / "x")).code == 3
    assert list(tmp_path.iterdir()) == []


def test_bundle_that_cannot_be_written_says_so(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    api.on("GET", "/v1/vms/web/why/archive", data=b"packed")
    ended = cli("vm", "why", "web", "--bundle", str(tmp_path / "missing" / "x"))
    assert ended.code == 6
    assert "No such file or directory" in ended.err
