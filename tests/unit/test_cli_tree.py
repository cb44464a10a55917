"""The command tree: every verb loads, its help says what the tree says, and wrong words are answered kindly."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import pytest

from banger.cli import TREE, Noun, Verb, load_verb
from banger.core.errors import EXIT_CODES, ErrorKind
from tests.support.cli import Cli

pytest_plugins = ("tests.support.cli_fixtures",)


def verbs(tree: Mapping[str, Verb | Noun] = TREE) -> Iterator[tuple[str, Verb]]:
    for name, entry in tree.items():
        if isinstance(entry, Noun):
            yield from ((f"{name} {verb}", found) for verb, found in verbs(entry.verbs))
        else:
            yield name, entry


VERBS = dict(verbs())


def test_summaries_are_the_first_lines_of_the_docstrings() -> None:
    for name, verb in VERBS.items():
        module, _, function = verb.target.partition(":")
        documented = inspect.getdoc(getattr(import_module(f"banger.commands.{module}"), function))
        assert documented is not None, name
        assert documented.splitlines()[0] == verb.summary, name


def test_every_verb_loads_and_explains_its_options() -> None:
    for name, verb in VERBS.items():
        params = load_verb(name, verb).params
        options = [option for param in params for option in param.opts]
        assert {"--json", "--quiet", "-q", "--debug"} <= set(options), name
        assert len(options) == len(set(options)), f"{name} takes an option twice"
        shown = [param for param in params if not verb.hidden and not getattr(param, "hidden", False)]
        assert not [param.name for param in shown if not getattr(param, "help", None)], name


def test_help_lists_every_noun_without_loading_it(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.code == 0
    for name, entry in TREE.items():
        listed = f"\n  {name} " in ended.out.partition("Aliases:")[0]
        assert listed is not getattr(entry, "hidden", False)


@pytest.mark.parametrize("arguments", [(), ("vm",), ("image",), ("-h",), ("vm", "-h"), ("vm", "run", "--help")])
def test_nothing_to_do_shows_help(cli: Cli, arguments: tuple[str, ...]) -> None:
    ended = cli(*arguments)
    assert ended.code == 0
    assert ended.out.startswith("Usage: banger")


def test_version_is_told_both_ways(cli: Cli) -> None:
    assert cli("--version").out == cli("version").out
    assert cli("version", "--json").json["version"] in cli("version").out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("vm", "lst"), 'banger vm has no command "lst"', "banger vm list"),
        (("imag",), 'banger has no command "imag"', "banger image list"),
        (("qqqq",), 'banger has no command "qqqq"', "banger --help"),
        (("vm", "show"), 'missing argument "VM..."', "banger vm show --help"),
        (("vm", "list", "--nope"), "no such option: --nope", "banger vm list --help"),
        (("run", "--cpus", "many", "x"), '"many" is not a number of CPUs', "write --cpus 2"),
        (("run", "--cpus", "1.5", "x"), "a VM has whole CPUs", "write --cpus 2"),
        (("run", "--cpus", "0", "x"), '"0" is not a number of CPUs', "write --cpus 2"),
        (("run", "--entrypoint", "[sh", "x"), '"[sh" is not a list of words', "write --entrypoint"),
        (("run", "--pull", "newer", "x"), '"newer" is not a valid value for --pull', "use missing, always, never"),
        (("run", "--memory", "lots", "x"), '"lots" is not a size', "write 512M or 2G"),
        (("run", "-p", "web", "x"), '"web" is not a port forward', "write 8080:80, 53:53/udp"),
        (("run", "--network", "wifi", "x"), '"wifi" is not a valid value for --network', "use user, tap, slirp, none"),
        (("run", "--label", "=x", "y"), '"=x" is not a label', "write --label KEY=VALUE"),
        (("vm", "stop", ""), 'the name "" is empty', "see whether a variable of your script is set"),
        (("vm", "delete", "-f", "web", ""), 'the name "" is empty', "see whether a variable of your script is set"),
        (("vm", "delete", "--label", ""), "a label has no name", "write --label KEY=VALUE"),
        (("vm", "kill", "--label", "=x"), "a label has no name", "write --label KEY=VALUE"),
        (("exec", "", "ls"), 'the name "" is empty', "see whether a variable of your script is set"),
        (("run", "-d", "--timeout", "5s", "x"), "--detach and --timeout exclude each other", "--ttl"),
        (("run", "", "ls"), "the image's name is empty", "see whether a variable of your script is set"),
        (("vm", "stop"), "no VM was named", "name VMs, or use --all or --label K=V"),
        (("vm", "stop", "a", "--all"), "VMs were named and also", "name VMs"),
        (("vm", "wait", "a", "--until", "bored"), '"bored" is not a valid value for --until', "use stopped, running"),
        (("vm", "cp", "a", "b"), "one of the two must be a path in a VM", "banger vm cp"),
        (("daemon", "--json"), "banger daemon needs a command", "banger daemon --help"),
        (("completion", "tcsh"), 'there is no completion for "tcsh"', "banger completion bash|zsh|fish"),
    ],
)
def test_wrong_use_exits_2_with_a_hint(cli: Cli, arguments: tuple[str, ...], message: str, hint: str) -> None:
    ended = cli(*arguments)
    assert ended.code == 2
    said = ended.out + ended.err
    assert message.replace('"', '\\"') in said if "--json" in arguments else message in said
    assert hint in said


def test_wrong_use_with_json_is_a_json_error(cli: Cli) -> None:
    ended = cli("vm", "list", "--json", "--nope")
    assert (ended.code, ended.json["error"]["kind"], ended.err) == (2, "usage", "")


@pytest.mark.parametrize("arguments", [("vm", "list"), ("kernel", "import", "mine", "./vmlinux")])
def test_directory_that_is_gone_is_named_as_the_reason(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("BANGER_HOME", "here")
    ended = cli(*arguments)
    assert ended.code == EXIT_CODES[ErrorKind.NOT_FOUND]
    assert "the directory that this command was started in is gone" in ended.err
