"""`banger vm cp`: which side is which, tar streams by `-`, and what is told about things left out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from banger.commands.copy import split_location
from banger.core.frames import FrameType
from tests.support.cli import Cli, banger
from tests.support.fake_api import FakeApi, FrameSession

pytest_plugins = ("tests.support.cli_fixtures",)


def tree_with(link_count: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        top = tarfile.TarInfo("etc")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for i in range(link_count):
            link = tarfile.TarInfo(f"etc/l{i}")
            link.type, link.linkname = tarfile.SYMTYPE, "/usr/\x1b[31m"
            tar.addfile(link)
    return buffer.getvalue()


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

    api.on("POST", "/v1/vms/web/files/put", talk=take)
    data = tree_with(1)
    assert banger("vm", "cp", "-", "web:/srv", stdin=data)[0] == 0
    assert received == [data]
    assert api.calls[0].query == {"directory": ["/srv"]}


def test_failed_copy_is_an_error_with_the_guests_words(cli: Cli, api: FakeApi, tmp_path: Path) -> None:
    api.fail("GET", "/v1/vms/web/files/stat", 409, kind="conflict", message='VM "web" is stopped, not running')
    ended = cli("vm", "cp", "web:/etc", str(tmp_path))
    assert (ended.code, ended.err) == (4, 'error: VM "web" is stopped, not running\n')
