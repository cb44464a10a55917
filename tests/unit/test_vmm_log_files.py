from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from banger.core.evidence import COMMAND_FILE
from banger.vmm import log_files


def test_bound_of_a_short_log_leaves_it_alone(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 10)
    assert not log_files.bound(log, limit_bytes=10)
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]


def test_bound_of_a_long_log_keeps_its_end_and_the_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"first" * 10 + b"last!")
        assert log_files.bound(log, limit_bytes=5)
        writer.write(b"next")
    assert log.read_bytes() == b"next"
    assert (tmp_path / "console.log.1").read_bytes() == b"last!"


def test_bound_twice_keeps_one_old_log(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    for text in (b"older", b"newer"):
        log.write_bytes(text)
        assert log_files.bound(log, limit_bytes=3)
    assert (tmp_path / "console.log.1").read_bytes() == b"wer"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["console.log", "console.log.1"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_log_that_has_filled_the_disk_is_cut_without_a_copy(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 10)

    def full(path: Path, fresh: Path, size_bytes: int) -> None:
        fresh.write_bytes(b"x")
        raise OSError(number, "no room")

    monkeypatch.setattr(log_files, "_copy_end", full)
    assert log_files.bound(log, limit_bytes=5)
    assert log.read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["console.log"]


@pytest.mark.parametrize("limit", [1, 1 << 20])
def test_bound_of_no_log_does_nothing(tmp_path: Path, limit: int) -> None:
    assert not log_files.bound(tmp_path / "console.log", limit)


def test_command_of_a_vmm_is_noted_beside_its_log_for_its_owner_alone(tmp_path: Path) -> None:
    log_files.note_command(tmp_path / "vmm.log", "QEMU 7.2", ["qemu", "-m", "256M"])
    noted = tmp_path / COMMAND_FILE
    assert json.loads(noted.read_text()) == {"version": "QEMU 7.2", "argv": ["qemu", "-m", "256M"]}
    assert noted.stat().st_mode & 0o777 == 0o600


def test_command_that_cannot_be_noted_keeps_no_vmm_from_starting(tmp_path: Path) -> None:
    log_files.note_command(tmp_path / "missing" / "vmm.log", "QEMU 7.2", [])


def test_room_is_made_before_a_start_so_that_no_boot_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "LIMIT_BYTES", 10)
    console, log = tmp_path / "console.log", tmp_path / "vmm.log"
    console.write_bytes(b"123456")
    log.write_bytes(b"12345")
    log_files.make_room(console, log, tmp_path / "none")
    assert (console.read_bytes(), (tmp_path / "console.log.1").read_bytes()) == (b"", b"23456")
    assert log.read_bytes() == b"12345"
