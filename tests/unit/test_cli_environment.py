"""`--env`, `--env-file`, `--hostname`, `--entrypoint` and labels, as they reach the daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Cli
from tests.support.fake_api import FakeApi, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)
RUN = "/v1/vms/run"


def run_config(api: FakeApi, cli: Cli, *arguments: str) -> dict[str, Any]:
    """What a `run` with these arguments asks for."""
    api.calls.clear()
    configs: list[dict[str, Any]] = []

    def talk(session: Any) -> None:
        configs.append(session.config)
        session.exit(0)

    api.on("POST", RUN, talk=talk)
    ended = cli("run", *arguments)
    assert ended.code == 0, ended.err
    return configs[0]


def test_environment_file_is_read_as_docker_reads_it(
    api: FakeApi, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "yes")
    monkeypatch.delenv("NOT_HERE", raising=False)
    file = tmp_path / "vars"
    lines = [
        "\ufeffFIRST=1", "# a comment", "", "  # another", '  QUOTED="as it is"', "HASH=a # b", "FROM_HERE", "NOT_HERE",
        "EMPTY=", "EQUALS=a=b", "TRAILING=x  ", "CR=y\r", "dotted.name=z", "TWICE=file",
    ]  # fmt: skip
    file.write_text("\n".join(lines))
    wanted = [
        "FIRST=1", 'QUOTED="as it is"', "HASH=a # b", "FROM_HERE=yes", "EMPTY=", "EQUALS=a=b", "TRAILING=x  ", "CR=y",
        "dotted.name=z", "TWICE=file",
    ]  # fmt: skip
    config = run_config(api, cli, "-e", "TWICE=flag", "--env-file", str(file), "alpine")
    assert config["spec"]["env"] == config["exec"]["env"] == [*wanted, "TWICE=flag"]


def test_exec_takes_environment_files_too(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = []

    def talk(session: Any) -> None:
        configs.append(session.config)
        session.exit(0)

    api.on("POST", "/v1/vms/web/exec", talk=talk)
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{name}=1\n")
    assert (
        cli("vm", "exec", "--env-file", str(tmp_path / "a"), "--env-file", str(tmp_path / "b"), "web", "env").code == 0
    )
    assert configs[0]["env"] == ["a=1", "b=1"]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"A=1\nB C=2\n", "B C=2"),
        (b"A=1\n=x\n", "=x"),
        (b"A=1\nB=\0\n", "B=\\x00"),
        (b"A=1\nexport B=2\n", "export B=2"),
    ],
)
def test_line_that_is_no_variable_is_named(api: FakeApi, cli: Cli, tmp_path: Path, content: bytes, cause: str) -> None:
    file = tmp_path / "vars"
    file.write_bytes(content)
    ended = cli("run", "--env-file", str(file), "alpine")
    assert ended.code == 2
    assert ended.err.startswith(f'error: line 2 of "{file}" is not an environment variable\n  cause: {cause}\n')


def test_environment_file_that_cannot_be_read_is_a_usage_error(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    ended = cli("run", "--env-file", str(tmp_path / "none"), "alpine")
    assert (ended.code, ended.err) == (
        2, f'error: cannot read "{tmp_path}/none"\n  cause: No such file or directory\n',
    )  # fmt: skip
    (tmp_path / "latin").write_bytes(b"A=\xe9\n")
    ended = cli("run", "--env-file", str(tmp_path / "latin"), "alpine")
    assert (ended.code, ended.err.splitlines()[0]) == (2, f'error: "{tmp_path}/latin" is not UTF-8')


@pytest.mark.parametrize(
    ("arguments", "entrypoint"),
    [
        ([], None),
        (["--entrypoint", "sh"], ["sh"]),
        (["--entrypoint", ""], []),
        (["--entrypoint="], []),
        (["--entrypoint", "/bin/my prog"], ["/bin/my prog"]),
        (["--entrypoint", '["sh", "-c"]'], ["sh", "-c"]),
    ],
)
def test_entrypoint_is_a_fact_of_the_vm(api: FakeApi, cli: Cli, arguments: list[str], entrypoint: Any) -> None:
    assert run_config(api, cli, *arguments, "alpine", "-c", "id")["spec"]["entrypoint"] == entrypoint


def test_hostname_and_labels_are_facts_of_the_vm(api: FakeApi, cli: Cli) -> None:
    spec = run_config(api, cli, "--hostname", "Db_1.lan", "-l", "a=b", "--label", "bare", "alpine")["spec"]
    assert (spec["hostname"], spec["labels"]) == ("Db_1.lan", {"a": "b", "bare": ""})


def test_pull_decides_when_the_image_is_fetched(api: FakeApi, cli: Cli) -> None:
    api.long("POST", "/v1/images/pull", {"id": "i", "name": "alpine"})
    run_config(api, cli, "--pull", "always", "alpine")
    assert api.calls[0].body == {"reference": "alpine"}
    api.fail("GET", "/v1/images/alpine", 404, kind="not_found", message='image "alpine" not found')
    assert cli("run", "--pull=never", "alpine").code == 125
    api.on("GET", "/v1/images/alpine", {"name": "alpine"})
    run_config(api, cli, "--pull=never", "alpine")


def test_create_takes_the_same_facts(api: FakeApi, cli: Cli) -> None:
    api.long("POST", "/v1/vms", vm_json())
    assert cli("vm", "create", "--hostname", "db", "--privileged", "alpine").code == 0
    assert api.calls[0].body["spec"]["hostname"] == "db"
