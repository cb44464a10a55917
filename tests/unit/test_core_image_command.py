"""Entrypoint, command and arguments, put together as `docker run` does."""

from __future__ import annotations

import pytest

from banger.core.image_command import command_of_run
from banger.core.models import ImageConfig


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "given", "arguments", "command"),
    [
        # neither: a shell
        ([], [], None, [], []),
        ([], ["bash"], None, [], ["bash"]),
        ([], ["python3"], None, ["python3", "-V"], ["python3", "-V"]),
        # alpine/git: arguments go behind the entrypoint, in place of the command
        (["git"], ["--help"], None, [], ["git", "--help"]),
        (["git"], ["--help"], None, ["status"], ["git", "status"]),
        (["docker-entrypoint.sh"], ["postgres"], None, ["postgres", "-c", "x=y"], ["docker-entrypoint.sh", "postgres", "-c", "x=y"]),
        # a Dockerfile's shell form
        (["/bin/sh", "-c", "exec top -b"], [], None, [], ["/bin/sh", "-c", "exec top -b"]),
        ([], ["/bin/sh", "-c", "echo hi"], None, [], ["/bin/sh", "-c", "echo hi"]),
        # a given entrypoint is not meant for the image's command
        (["git"], ["--help"], ["sh"], [], ["sh"]),
        (["git"], ["--help"], ["sh"], ["-c", "id"], ["sh", "-c", "id"]),
        (["git"], ["--help"], [], ["id"], ["id"]),
        (["git"], ["--help"], [], [], []),
        # one empty word clears an entrypoint in a Dockerfile
        ([""], ["bash"], None, [], ["bash"]),
        ([""], ["bash"], None, ["id"], ["id"]),
        # what is process 1 already is not run a second time
        ([], ["/sbin/init"], None, [], []),
        ([], ["/lib/systemd/systemd"], None, [], []),
        ([], ["/usr/lib/systemd/systemd", "--system"], None, [], []),
        (["/init"], [], None, ["id"], ["id"]),
        (["/usr/local/bin/entrypoint", "/sbin/init"], [], None, [], []),
        (["/usr/local/bin/entrypoint", "/sbin/init"], [], None, ["id"], ["id"]),
        (["/sbin/init"], ["--show"], None, [], []),
        # but it is, if somebody types it; and a subcommand of that name is no init
        ([], ["bash"], None, ["/sbin/init"], ["/sbin/init"]),
        ([], ["bash"], ["/sbin/init"], [], ["/sbin/init"]),
        (["terraform"], ["init"], None, [], ["terraform", "init"]),
        (["/opt/app/init"], [], None, [], ["/opt/app/init"]),
    ],
)  # fmt: skip
def test_command_of_a_run_is_dockers(
    entrypoint: list[str], cmd: list[str], given: list[str] | None, arguments: list[str], command: list[str]
) -> None:
    config = ImageConfig(entrypoint=tuple(entrypoint), cmd=tuple(cmd))
    assert command_of_run(config, given, arguments) == tuple(command)
