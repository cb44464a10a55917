"""The command that a guest starts by itself, as a string."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core import guest_command as command
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest, Terminal
from banger.core.guest_command import exec_command

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=20)


@given(st.lists(words, max_size=8))
def test_exec_command_any_arguments_arrive_as_they_are(argv: list[str]) -> None:
    assert shlex.split(exec_command(ExecRequest(tuple(argv)))) == ["banger-exec", "--", *argv]


@given(names, words, words, words)
def test_exec_command_options_come_before_the_arguments(name: str, value: str, user: str, workdir: str) -> None:
    request = ExecRequest(("-e", "--"), env=(f"{name}={value}",), user=user, workdir=workdir)
    options = [*(["-u", user] if user else []), *(["-w", workdir] if workdir else []), "-e", f"{name}={value}"]
    assert shlex.split(exec_command(request)) == ["banger-exec", *options, "--", "-e", "--"]


@pytest.mark.parametrize(
    "request_",
    [
        ExecRequest(("echo", "a\0b")),
        ExecRequest(("true",), user="ro\0ot"),
        ExecRequest(("true",), workdir="/\0"),
        ExecRequest(("true",), env=("A=\0",)),
        ExecRequest(("true",), env=("A",)),
        ExecRequest(("true",), env=("=1",)),
        ExecRequest(("true",), env=("A B=1",)),
        ExecRequest(("echo", "\udcff")),
        ExecRequest(("echo", "x" * command.MAX_COMMAND_BYTES)),
    ],
    ids="nul-argument nul-user nul-workdir nul-value no-value no-name space-in-name not-utf8 too-long".split(),
)
def test_exec_command_what_no_guest_can_run_is_a_usage_error(request_: ExecRequest) -> None:
    with pytest.raises(BangerError) as caught:
        exec_command(request_)
    assert caught.value.kind is ErrorKind.USAGE


def test_exec_command_error_about_a_variable_does_not_show_its_value() -> None:
    with pytest.raises(BangerError) as caught:
        exec_command(ExecRequest(("true",), env=("TOP SECRET=hunter2",)))
    assert "hunter2" not in str(caught.value.to_dict())


@pytest.mark.parametrize("size", [(-1, 80), (24, 65536), (10**400, 80)])
def test_terminal_of_a_size_that_is_none_is_a_usage_error(size: tuple[int, int]) -> None:
    with pytest.raises(BangerError, match="is none") as caught:
        Terminal(*size)
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize("name", ["xterm\n", "a b", "\0", "x" * 5_000_000, "\x1b[2J", "ü"])
def test_terminal_whose_name_is_none_is_a_usage_error(name: str) -> None:
    with pytest.raises(BangerError, match="not a terminal name") as caught:
        Terminal(24, 80, name)
    assert caught.value.kind is ErrorKind.USAGE
    assert len(caught.value.message) < 400
