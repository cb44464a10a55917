"""`banger vm cp`: which side is which, tar streams by `-`, and what is told about things left out."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from banger.commands.copy import split_location
from banger.core.frames import FrameType
from tests.support.cli import Cli, banger
from tests.support.fake_api import FakeApi, FrameSession
from tests.support.tars import archive, entry, read_archive

pytest_plugins = ("tests.support.cli_fixtures",)


def tree_with(devices: int) -> bytes:
    return archive(
        entry("etc", tarfile.DIRTYPE), *(entry(f"etc/d{i}\x1b[31m", tarfile.CHRTYPE) for i in range(devices))
    )


def script_get(api: FakeApi, data: bytes) -> None:
    def give(session: FrameSession) -> None:
        session.send(FrameType.STDOUT, data)
        session.exit(0)

    api.on("GET", "/v1/vms/web/files/stat", {"path": "/etc", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/get", talk=give)


@pytest.mark.parametrize(
    ("text", "location"),
    [
        ("web:/etc", ("web", "/etc")),
        ("web:", ("web", "/")),
        ("web:a:b", ("web", "a:b")),
        ("./a:b", ("", "./a:b")),
        ("/x/a:b", ("", "/x/a:b")),
        (":b", ("", ":b")),
        ("plain", ("", "plain")),
        ("-", ("", "-")),
    ],
)
def test_location_is_in_a_vm_if_a_name_and_a_colon_begin_it(text: str, location: tuple[str, str]) -> None:
    assert split_location(text) == location


def test_left_out_members_are_told_briefly_and_exit_9(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    script_get(api, tree_with(13))
    ended = cli("vm", "cp", "web:/etc", str(tmp_path))
    assert ended.code == 9
    lines = ended.err.splitlines()
    assert (len(lines), lines[-1]) == (11, "left out: 3 more, see --json")
    assert "\x1b" not in ended.err
    assert (tmp_path / "etc").is_dir()
    assert len(cli("vm", "cp", "web:/etc", str(tmp_path), "--json").json["left_out"]) == 13


def test_copy_out_to_a_dash_is_the_tar_stream(api: FakeApi) -> None:
    data = tree_with(0)
    script_get(api, data)
    assert banger("vm", "cp", "web:/etc", "-") == (0, data, b"")


def test_copy_in_from_a_dash_sends_standard_input(api: FakeApi) -> None:
    received: list[bytes] = []

    def take(session: FrameSession) -> None:
        received.append(session.read_stdin())
        session.exit(0)

    api.on("GET", "/v1/vms/web/files/stat", {"path": "/srv", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=take)
    for data in (tree_with(1), gzip.compress(tree_with(1))):
        assert banger("vm", "cp", "-", "web:/srv", stdin=data)[0] == 0
        assert sorted(read_archive([received.pop()])) == ["etc", "etc/d0\x1b[31m"]
    assert {call.query["directory"][0] for call in api.asked("POST", "/v1/vms/web/files/put")} == {"/srv"}


@pytest.mark.parametrize(("kind", "code"), [("missing", 3), ("file", 4)])
def test_copy_in_from_a_dash_needs_a_directory(api: FakeApi, kind: str, code: int) -> None:
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/srv", "kind": kind})
    assert banger("vm", "cp", "-", "web:/srv", stdin=tree_with(0))[0] == code


@pytest.mark.parametrize("data", [b"", b"no tar" * 1000, tree_with(3)[:900]])
def test_copy_in_from_a_dash_of_no_whole_archive_is_invalid(api: FakeApi, data: bytes) -> None:
    api.on("GET", "/v1/vms/web/files/stat", {"path": "/srv", "kind": "directory"})
    api.on("POST", "/v1/vms/web/files/put", talk=lambda session: session.read_stdin() and None)
    code, _, errors = banger("vm", "cp", "-", "web:/srv", stdin=data)
    assert (code, errors.splitlines()[0]) == (9, b"error: standard input is not a whole tar archive")


def test_what_the_guest_could_not_send_is_told_and_exit_9(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    def give(session: FrameSession) -> None:
        session.send(FrameType.STDERR, b"left out: etc/flush: it cannot be read\ntar: x: socket ignored\n")
        session.send(FrameType.STDOUT, tree_with(0))
        session.exit(0)

    script_get(api, b"")
    api.on("POST", "/v1/vms/web/files/get", talk=give)
    for target in (str(tmp_path), "-"):
        code, _, errors = banger("vm", "cp", "web:/etc", target)
        assert (code, errors) == (9, b"left out: etc/flush: it cannot be read\n")


def test_copy_between_two_paths_of_this_host_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    assert cli("vm", "cp", "./a", str(tmp_path)).code == 2


def test_copy_between_two_vms_goes_through_here(api: FakeApi) -> None:
    received: list[bytes] = []

    def take(session: FrameSession) -> None:
        received.append(session.read_stdin())
        session.exit(0)

    script_get(api, tree_with(1))
    api.on("GET", "/v1/vms/db/files/stat", {"path": "/srv", "kind": "directory"})
    api.on("POST", "/v1/vms/db/files/put", talk=take)
    assert banger("vm", "cp", "web:/etc", "db:/srv") == (0, b"", b"")
    assert sorted(read_archive(received)) == ["etc", "etc/d0\x1b[31m"]


def test_failed_copy_is_an_error_with_the_guests_words(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    api.fail("GET", "/v1/vms/web/files/stat", 409, kind="conflict", message='VM "web" is stopped, not running')
    ended = cli("vm", "cp", "web:/etc", str(tmp_path))
    assert (ended.code, ended.err) == (4, 'error: VM "web" is stopped, not running\n')
