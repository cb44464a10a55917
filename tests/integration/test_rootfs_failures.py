"""Builds that must fail: what they say, and that they leave nothing behind."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import subprocess
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.units import MIB
from banger.posix import programs as posix_programs
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.ext4 import data as ext4_data
from banger.rootfs.limits import Limits
from tests.support.rootfs import (
    archive,
    build,
    file,
    write_layers,
)

pytestmark = pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None, reason="e2fsprogs is not installed"
)

OPERATION = "image.pull"


def operation() -> Operation:
    return Operation(OPERATION, "test")


LAYERS = [archive(*(file(b"%d/%d" % (layer, index), os.urandom(100_000)) for index in range(60))) for layer in range(3)]


def failure(folder: Path, *archives: bytes, **arguments: Any) -> BangerError:
    """The error of a build that must fail, after checking that no image is left."""
    with pytest.raises(BangerError) as caught:
        build(folder, *archives, **arguments)
    assert not (folder / "rootfs.ext4").exists()
    return caught.value


def test_build_of_a_hostile_layer_names_the_layer(tmp_path: Path) -> None:
    error = failure(tmp_path, archive(file(b"fine")), archive(file(b".", b"x")))

    assert error.kind is ErrorKind.INVALID
    assert "root directory" in error.message + error.cause


def test_build_of_a_damaged_layer_names_the_layer(tmp_path: Path) -> None:
    error = failure(tmp_path, archive(file(b"fine")), b"\x1f\x8bnot gzip at all", archive())

    assert (error.kind, error.message) == (ErrorKind.INVALID, "layer 2 of 3 is not acceptable")
    assert "gzip" in error.cause


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
@pytest.mark.parametrize(
    "bomb",
    [archive(file(b"x", b"a" * (96 * MIB))), archive(file(b"x")) + bytes(96 * MIB)],
    ids=["in a file", "behind the end"],
)
def test_build_of_a_bomb_is_stopped_by_what_comes_out_of_it(
    tmp_path: Path, bomb: bytes, compress: Callable[[bytes], bytes]
) -> None:
    """Bounded in memory and on the disk, however little there was to download."""
    layer = tmp_path / "layer"
    layer.write_bytes(compress(bomb))
    assert layer.stat().st_size < MIB
    target = tmp_path / "rootfs.ext4"
    tracemalloc.start()
    try:
        with pytest.raises(BangerError) as caught:
            build_rootfs([Layer(path=layer)], target, operation=operation(), limits=Limits(total_bytes=16 * MIB))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert caught.value.kind is ErrorKind.INVALID
    assert "16 MiB" in caught.value.cause
    assert peak < 48 * MIB
    assert not target.exists()


def test_build_of_a_bomb_is_stopped_before_the_disk_is_full(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.write_bytes(zstandard.ZstdCompressor().compress(archive(file(b"x", b"a" * (96 * MIB)))))
    target = tmp_path / "rootfs.ext4"
    limits = Limits(total_setting="image.max_unpacked_mib", reserve_bytes=1 << 60)

    with pytest.raises(BangerError, match="nearly full: 32 MiB") as caught:
        build_rootfs([Layer(path=layer)], target, operation=operation(), limits=limits)

    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert "64 GiB (image.max_unpacked_mib)" in caught.value.cause
    assert not target.exists()


def test_build_of_truncated_zstd_is_refused(tmp_path: Path) -> None:
    data = zstandard.ZstdCompressor().compress(file(b"a", bytes(512)))[:-1]

    assert failure(tmp_path, data).kind is ErrorKind.INVALID


def test_build_of_too_many_layers_is_refused(tmp_path: Path) -> None:
    assert failure(tmp_path, *[archive()] * 129).kind is ErrorKind.INVALID


def test_build_that_does_not_fit_the_wanted_size_is_exhausted(tmp_path: Path) -> None:
    error = failure(tmp_path, archive(file(b"a", b"x" * 20 * MIB)), size_bytes=16 * MIB)

    assert error.kind is ErrorKind.EXHAUSTED
    assert "16 MiB" in error.message


def test_build_with_a_size_that_mke2fs_refuses_is_invalid(tmp_path: Path) -> None:
    assert failure(tmp_path, archive(), size_bytes=4096).kind is ErrorKind.INVALID


def test_build_on_a_full_disk_says_how_much_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.pwritev, iter(range(1000))

    def full_after_a_while(*arguments: Any) -> int:
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(ext4_data.os, "pwritev", full_after_a_while)
    error = failure(tmp_path, archive(file(b"a", os.urandom(40 * MIB))))

    assert error.kind is ErrorKind.EXHAUSTED
    assert "needed" in error.message
    assert "No space left" in error.cause


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_build_on_a_disk_that_is_really_full_is_exhausted(tmp_path: Path) -> None:
    [layer] = write_layers(tmp_path, [archive(file(b"a", os.urandom(20 * MIB)))], compress=True)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], check=True)
    try:
        with pytest.raises(BangerError) as caught:
            build_rootfs([layer], small / "rootfs.ext4", operation=operation())
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)

    assert caught.value.kind is ErrorKind.EXHAUSTED
    assert re.search("about (1[89]|2[0-9]) MiB are needed", caught.value.message)


class Cancelling(io.BytesIO):
    """A layer during whose reading somebody cancels."""

    def __init__(self, data: bytes, running: Operation) -> None:
        super().__init__(data)
        self._running = running

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > 1_000_000:
            self._running.cancel("no longer wanted")
        return super().read(size)


def test_build_cancelled_while_reading_leaves_nothing(tmp_path: Path) -> None:
    running = operation()
    running.begin()
    stream = Cancelling(LAYERS[0], running)

    with pytest.raises(BangerError) as caught:
        build_rootfs([Layer(stream=stream)], tmp_path / "rootfs.ext4", operation=running)

    assert caught.value.kind is ErrorKind.CANCELLED
    assert stream.tell() < len(LAYERS[0])
    assert list(tmp_path.iterdir()) == []


class Breaking(Cancelling):
    """A pipe whose writer is killed by the cancelling."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        return b"" if self._running.token.cancelled else data


def test_build_whose_pipe_breaks_by_cancelling_is_cancelled_not_invalid(tmp_path: Path) -> None:
    running = operation()
    running.begin()

    with pytest.raises(BangerError) as caught:
        build_rootfs([Layer(stream=Breaking(LAYERS[0], running))], tmp_path / "rootfs.ext4", operation=running)

    assert caught.value.kind is ErrorKind.CANCELLED


def test_build_cancelled_while_checking_kills_e2fsck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    slow = programs / "e2fsck"
    started = tmp_path / "started"
    slow.write_text(f"#!/bin/sh\n: > {started}\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    running = operation()
    running.begin()

    def cancel_when_started() -> None:
        for _ in range(3000):
            if started.exists() or running.token.wait(0.01):
                break
        running.cancel()

    canceller = threading.Thread(target=cancel_when_started)
    canceller.start()
    with pytest.raises(BangerError) as caught:
        build_rootfs(write_layers(tmp_path, [archive()]), tmp_path / "rootfs.ext4", operation=running)
    canceller.join()

    assert caught.value.kind is ErrorKind.CANCELLED
    assert running.elapsed_s < 30
    assert not (tmp_path / "rootfs.ext4").exists()


def test_build_found_unclean_is_a_bug_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "e2fsck").write_text("#!/bin/sh\necho Inode 12 is odd\nexit 4\n")
    (programs / "e2fsck").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    error = failure(tmp_path, archive())

    assert (error.kind, error.cause) == (ErrorKind.INTERNAL, "Inode 12 is odd")


@pytest.mark.parametrize("missing", ["mke2fs", "e2fsck"])
def test_build_without_e2fsprogs_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    real = shutil.which
    monkeypatch.setattr(
        posix_programs.shutil, "which", lambda name, **arguments: None if name == missing else real(name, **arguments)
    )

    error = failure(tmp_path, archive())

    assert (error.kind, error.hint) == (ErrorKind.UNAVAILABLE, "apt-get install e2fsprogs")
    assert missing in error.message
