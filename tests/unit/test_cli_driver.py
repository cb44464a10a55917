"""``banger driver``: what it asks the daemon for, what it prints, how it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from banger.core.codec import to_plain
from banger.core.models import VmmProgram
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi

pytest_plugins = ("tests.support.cli_fixtures",)

INSTALL, DRIVER = "/v1/drivers/firecracker/install", "/v1/drivers/firecracker"
DONE = {"id": "firecracker-1.16.1", "name": "firecracker", "version": "1.16.1"}
SUMS = ("a" * 64, "b" * 64)


@pytest.mark.parametrize(
    ("typed", "body"),
    [
        ((), {}),
        (("--version", "1.16.1"), {"version": "1.16.1"}),
        (("--from", "x.tgz", "--sha256", SUMS[0]), {"source": "/usr/x.tgz", "sums": [SUMS[0]]}),
        (("--from", "/a/dir", "--sha256", SUMS[0], "--sha256", SUMS[1]), {"source": "/a/dir", "sums": [*SUMS]}),
        (("--from", "https://host/x.tgz"), {"source": "https://host/x.tgz"}),
    ],
)
def test_install_sends_what_was_typed_with_absolute_paths(
    cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], body: dict[str, Any]
) -> None:
    monkeypatch.chdir("/usr")
    api.long("POST", INSTALL, DONE)
    ended = cli("driver", "install", "firecracker", *typed)
    assert (ended.code, ended.out) == (0, "firecracker 1.16.1\n")
    assert api.calls[0].body == body


def test_install_as_json_is_the_whole_answer(cli: Cli, api: FakeApi) -> None:
    api.long("POST", INSTALL, DONE)
    assert json.loads(cli("driver", "install", "firecracker", "--json").out) == DONE


def test_install_that_nobody_vouches_for_is_refused_with_what_to_type(cli: Cli, api: FakeApi) -> None:
    error = {"kind": "denied", "message": 'no SHA-256 of "Firecracker 1.13.0" is known', "hint": "add --sha256 HEX"}
    api.fail("POST", INSTALL, 403, **error)
    ended = cli("driver", "install", "firecracker", "--version", "1.13.0")
    assert ended.code == 6
    assert ended.err.endswith("  hint: add --sha256 HEX\n")


def test_remove_names_the_version_where_there_are_several(cli: Cli, api: FakeApi) -> None:
    api.long("DELETE", DRIVER, DONE)
    ended = cli("driver", "remove", "firecracker", "--version", "1.16.1")
    assert (ended.code, ended.out) == (0, "firecracker 1.16.1\n")
    assert api.calls[0].query["version"] == ["1.16.1"]


@pytest.mark.parametrize("word", ["rm", "delete", "uninstall"])
def test_words_of_other_nouns_lead_to_remove(cli: Cli, word: str) -> None:
    ended = cli("driver", word, "firecracker")
    assert ended.code == 2
    assert "banger driver remove firecracker" in ended.err


def test_list_tells_what_is_used_and_what_is_wrong(cli: Cli, api: FakeApi) -> None:
    programs = [
        VmmProgram("qemu", "7.2.22", "host", "/usr/bin/qemu-system-x86_64", is_default=True),
        VmmProgram("firecracker", "1.16.1", "installed", "/d", is_default=True, support="supported"),
        VmmProgram(
            "firecracker", "1.12.1", "installed", "/d", support="1.12 is old", jail_problem="there is no jailer"
        ),
        VmmProgram("firecracker", "1.10.0", "installed", "/d", broken="jailer missing"),
    ]
    users = [["db"], ["web", "job"], [], []]
    rows = [{**to_plain(one), "used_by": used} for one, used in zip(programs, users, strict=True)]
    api.on("GET", "/v1/drivers", rows)
    lines = [line.split("  ") for line in cli("driver", "list").out.splitlines()]
    shown = [[word.strip() for word in line if word.strip()] for line in lines]
    assert shown[0] == ["NAME", "VERSION", "DEFAULT", "ORIGIN", "STATE", "USED-BY", "AGE"]
    assert shown[1][:6] == ["qemu", "7.2.22", "yes", "host", "works", "db"]
    assert shown[2][:6] == ["firecracker", "1.16.1", "yes", "installed", "supported", "web, job"]
    assert "1.12 is old; there is no jailer" in shown[3]
    assert "broken: jailer missing" in shown[4]
