"""Helper programs are run to their end, and not longer than anybody wants them to."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.posix.programs import ProgramError, find_program, output_of, require_program, run_program
from tests.support.waiting import eventually


def test_program_that_fails_brings_its_status_and_last_words() -> None:
    with pytest.raises(ProgramError) as caught:
        output_of(["sh", "-c", "echo first >&2; echo last >&2; exit 3"], CancelToken())
    assert (caught.value.status, caught.value.words) == (3, "first\nlast")


def test_program_of_a_cancelled_operation_ends_at_once() -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(BangerError) as caught:
        run_program(["sleep", "60"], token=token)
    assert caught.value.kind is ErrorKind.CANCELLED


def test_program_that_is_cancelled_takes_its_children_along(tmp_path: Path) -> None:
    token, pid_file = CancelToken(), tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait"
    caught: list[BangerError] = []

    def run() -> None:
        try:
            run_program(["sh", "-c", script], token=token)
        except BangerError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(pid_file.exists)
    token.cancel()
    thread.join(20)
    assert [error.kind for error in caught] == [ErrorKind.CANCELLED]
    eventually(lambda: not Path("/proc", pid_file.read_text().strip()).exists() or _is_zombie(pid_file))


def _is_zombie(pid_file: Path) -> bool:
    try:
        return ") Z " in Path("/proc", pid_file.read_text(encoding="utf-8").strip(), "stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return True


def test_program_that_takes_too_long_is_ended_with_what_holds_its_output() -> None:
    begun = time.monotonic()
    with pytest.raises(BangerError) as caught:
        run_program(["sh", "-c", "sleep 60 & sleep 60"], timeout_s=0.2)
    assert (caught.value.kind, caught.value.message) == (ErrorKind.TIMEOUT, '"sh" took longer than 0 s')
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("name", "package"), [("nft", "nftables"), ("e2fsck", "e2fsprogs"), ("mmdebstrap", "mmdebstrap")]
)
def test_program_that_is_missing_is_answered_with_its_package(
    monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setattr("banger.posix.programs.shutil.which", lambda *_, **__: None)
    assert find_program(name) is None
    for ask in (lambda: require_program(name), lambda: run_program([name, "--version"])):
        with pytest.raises(BangerError) as caught:
            ask()
        error = caught.value
        assert (error.kind, error.message, error.hint) == (
            ErrorKind.UNAVAILABLE,
            f'"{name}" is not installed',
            f"apt-get install {package}",
        )


def test_program_speaks_english_and_gets_what_it_is_given(tmp_path: Path) -> None:
    script = 'cat; echo "$LC_ALL $GIVEN $PWD" >&2'
    environment = {"PATH": os.environ["PATH"], "GIVEN": "yes", "LC_ALL": "de_DE.UTF-8"}
    done = run_program(["sh", "-c", script], stdin=b"in", environment=environment, cwd=tmp_path)
    assert (done.status, done.output, done.words) == (0, b"in", f"C yes {tmp_path}")
    merged = run_program(["sh", "-c", script], stdin=b"in\n", environment=environment, cwd=tmp_path, merge_errors=True)
    assert merged.text == f"in\nC yes {tmp_path}\n"
