"""The program that becomes the command, run on this host: what it hands over, and what it refuses."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from banger.guest.agent_program import agent_program

pytestmark = pytest.mark.skipif(os.getuid() != 0 or os.uname().machine != "x86_64", reason="needs root and an x86-64")

USER, GROUP = 4242, 4343


@pytest.fixture
def become(tmp_path: Path) -> Path:
    program = tmp_path / "become"
    program.write_bytes(agent_program())
    program.chmod(0o755)
    tmp_path.chmod(0o755)
    return program


def run(
    become: Path, *argv: str, user: str = "0", group: str = "0", groups: str = ""
) -> subprocess.CompletedProcess[str]:
    words = [become, "", user, group, groups, *argv]
    return subprocess.run(words, input="typed\n", capture_output=True, text=True, check=False)


def write(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o755)
    return str(path)


def elf(machine: int, program_headers: int = 0) -> bytes:
    """An ELF header and nothing that it promises, then a line that a shell would run."""
    identity = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, program_headers, 0, 0, 0)
    return identity + header + b"\necho run as shell\n"


def test_command_gets_its_arguments_numbers_and_a_session_of_its_own(become: Path) -> None:
    script = 'echo "$0 $1"; id -u; id -g; id -G; cut -d" " -f6 /proc/self/stat; echo $$'
    done = run(become, "/bin/sh", "zeroth", "-c", script, "a", "b c", user=str(USER), group=str(GROUP), groups="44,50")
    name, user, group, groups, session, pid = done.stdout.splitlines()
    assert (name, user, group, groups) == ("a b c", str(USER), str(GROUP), f"{GROUP} 44 50")
    assert session == pid


def test_standard_streams_can_be_opened_by_the_user_who_runs(become: Path) -> None:
    script = "cat </dev/stdin; echo out >/proc/self/fd/1; echo err >>/dev/stderr"
    done = run(become, "/bin/sh", "sh", "-c", script, user=str(USER))
    assert (done.returncode, done.stdout, done.stderr) == (0, "typed\nout\n", "err\n")


def test_null_device_as_a_standard_stream_stays_roots(become: Path) -> None:
    words = [become, "", str(USER), "0", "", "/bin/true", "true"]
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    assert Path(os.devnull).stat().st_uid == 0


@pytest.mark.parametrize("user", ["0", str(USER)])
@pytest.mark.parametrize(
    "content",
    [
        elf(183),
        elf(62),
        elf(62, program_headers=40000),
        b"echo run as shell\n",
        b"",
        b"\n#!/bin/sh\necho run as shell\n",
    ],
    ids="foreign-elf empty-elf damaged-elf script-without-a-name empty late-name".split(),
)
def test_file_of_no_format_is_refused_and_never_run_as_shell(
    become: Path, tmp_path: Path, content: bytes, user: str
) -> None:
    write(tmp_path / "program", content)
    words = ["chroot", tmp_path, "/become", "", user, "0", "", "/program", "program"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == 'banger: cannot execute "/program": exec format error\n'


def test_script_runs_by_the_program_it_names(become: Path, tmp_path: Path) -> None:
    assert run(become, write(tmp_path / "script", b"#!/bin/sh\necho named\n"), "script").stdout == "named\n"


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (None, 127, "no such file or directory"),
        (b"#!/no/such/interpreter\n", 127, "no such file or directory"),
        (b"#!/etc/passwd\n", 126, "permission denied"),
    ],
    ids="missing missing-interpreter closed-interpreter".split(),
)
def test_program_that_does_not_start_is_named_with_the_reason(
    become: Path, tmp_path: Path, content: bytes | None, code: int, reason: str
) -> None:
    path = tmp_path / "program"
    if content is not None:
        write(path, content)
    done = run(become, str(path), "program")
    assert done.returncode == code
    assert f'cannot execute "{path}": {reason}' in done.stderr


@pytest.mark.parametrize(
    ("user", "group", "groups"),
    [("4294967296", "0", ""), ("2147483648", "0", ""), ("0", "-1", ""), ("", "0", ""), ("0", "0", "1,x")],
)
def test_number_that_is_nobodys_is_refused_and_nothing_runs(become: Path, user: str, group: str, groups: str) -> None:
    done = run(become, "/bin/echo", "echo", "ran", user=user, group=group, groups=groups)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", "banger: cannot become this user\n")


def test_directory_that_cannot_be_a_cgroup_keeps_no_command_from_running(become: Path, tmp_path: Path) -> None:
    place = tmp_path / "groups" / "mine"
    for _ in range(2):
        done = subprocess.run(
            [become, place, "0", "0", "", "/bin/echo", "echo", "ran"], capture_output=True, check=True
        )
        assert done.stdout == b"ran\n"


def test_cgroups_that_have_become_empty_are_removed(become: Path, tmp_path: Path) -> None:
    for name in ("empty", "used/by", "mine"):
        (tmp_path / "groups" / name).mkdir(parents=True)
    (tmp_path / "groups" / "file").touch()
    words = [become, tmp_path / "groups" / "other", "0", "0", "", "/bin/true", "true"]
    (tmp_path / "groups" / "mine" / "cgroup.procs").touch()
    subprocess.run(words, check=True)
    assert sorted(path.name for path in (tmp_path / "groups").iterdir()) == ["file", "mine", "other", "used"]
