"""A field of a VM's spec is written down once, and everything that takes specs has it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from banger.api.openapi import Described, document
from banger.commands.run import run
from banger.commands.vm import create
from banger.core import codec
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire import reading
from banger.core.wire.exec import ExecConfig, RunConfig
from banger.core.wire.facts import facts_of
from banger.core.wire.vm_spec import SpecOptions, VmSpec, from_settings
from banger.core.wire.vms import CreateVmBody
from banger.sdk import ExecOptions
from scripts.spec_table import rows
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli_fixtures",)
CLI = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
NAMES = [one.name for one in fields(VmSpec)]


@pytest.mark.parametrize("name", NAMES)
def test_field_says_what_it_is(name: str) -> None:
    assert facts_of(VmSpec)[name].help.endswith(".")


def test_sdk_takes_every_field_with_the_values_that_it_may_have() -> None:
    taken = get_type_hints(SpecOptions)
    assert [*taken] == [name for name in NAMES if name not in ("image", "ephemeral")], "in the order of VmSpec, too"
    for name, annotation in taken.items():
        literal = get_args(annotation) if get_origin(annotation) is Literal else ()
        assert literal == facts_of(VmSpec)[name].choices, name


def test_sdk_takes_everything_about_a_command_but_a_terminal() -> None:
    assert {*ExecOptions.__annotations__} - {"input", "check"} == {one.name for one in fields(ExecConfig)} - {
        "argv",
        "tty",
    }


def test_command_line_takes_every_field_that_has_an_option(cli: Cli) -> None:
    for name, about in facts_of(VmSpec).items():
        if about.flags:
            assert name in inspect.signature(run).parameters
        if about.flags and not about.is_of_runs:
            assert name in inspect.signature(create).parameters
    shown = cli("run", "--help").out
    for about in facts_of(VmSpec).values():
        for flag in about.flags:
            assert flag in shown


def test_description_has_every_field_with_its_bounds() -> None:
    described = document([Described("POST", "/v1/vms", "create", body=CreateVmBody)])["components"]["schemas"]["VmSpec"]
    assert [*described["properties"]] == NAMES
    assert described["properties"]["network"]["enum"] == ["user", "tap", "slirp", "none"]
    assert described["properties"]["cpus"]["maximum"] == 1024
    assert described["properties"]["ttl_s"]["description"].startswith("Delete the VM this long after its creation")
    assert described["required"] == ["image"]


def test_table_in_the_documentation_is_that_of_the_code() -> None:
    table = CLI.split("| option | field | meaning |\n| --- | --- | --- |\n")[1].split("\n\n")[0].splitlines()
    assert table == rows(), "run: python -m scripts.spec_table"


@pytest.mark.parametrize(
    "value",
    [
        VmSpec("debian"),
        VmSpec("debian", cpus=2, labels={"a": "b"}, entrypoint=(), command=None, ttl_s=1.5),
        RunConfig(VmSpec("x", env=("A=b",)), "web", ExecConfig(("ls",), timeout_s=0.5)),
        CreateVmBody(VmSpec("x"), start=True),
    ],
)
def test_request_arrives_as_it_was_meant_though_defaults_are_left_out(value: Any) -> None:
    sent = codec.to_request(value)
    assert codec.from_plain(type(value), sent) == value
    assert len(str(sent)) < len(str(codec.to_plain(value)))


@dataclass(frozen=True)
class _Later(VmSpec):
    """The spec of a later version."""

    colour: str = "red"


def test_older_daemon_understands_whoever_wishes_for_nothing_new() -> None:
    assert codec.from_plain(VmSpec, codec.to_request(_Later("debian", cpus=2))) == VmSpec("debian", cpus=2)


def test_settings_that_somebody_chose_fill_in_what_was_not_given() -> None:
    assert from_settings({"vm.cpus": 3, "vm.network": "tap"}.get) == {"cpus": 3, "network": "tap"}


@pytest.mark.parametrize("text", ["²", "٣", "9" * 5000, "-1", "1e3", "0x10", "", " ", "1_0", "NaN"])
@pytest.mark.parametrize("read", [reading.cpu_count, reading.mebibytes])
def test_number_that_is_none_is_a_usage_error(read: Any, text: str) -> None:
    with pytest.raises(BangerError) as caught:
        read(text)
    assert caught.value.kind is ErrorKind.USAGE
    assert len(str(caught.value)) <= 4100, "two texts of 2000"


@pytest.mark.parametrize("text", ["[" * 100_000, '["a", 1]', '["a"'])
def test_entrypoint_that_is_no_list_of_words_is_a_usage_error(text: str) -> None:
    with pytest.raises(BangerError, match="is not a list of words"):
        reading.entrypoint(text)
