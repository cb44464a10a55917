"""Bootstrapping from the host's own package mirror."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import ImageRequest
from banger.core.progress import EventKind
from banger.layout import Layout
from banger.rootfs.apt_sources import read_sources, select
from banger.rootfs.bootstrap import BootstrapImageSource, HostRelease
from tests.support.bootstrapped import check_debian
from tests.support.soak import IS_SOAK
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed")

needs_mirror = pytest.mark.skipif(
    not select(read_sources(), (host := HostRelease.read("amd64")).distribution, host.codename, host.codename),
    reason="this host has no package source to bootstrap from",
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path / "home")})
    layout.make_directories()
    return layout


@pytest.fixture
def source(layout: Layout) -> BootstrapImageSource:
    return BootstrapImageSource(layout, Config.load(layout.config_file, {}))


@pytest.fixture
def staging(layout: Layout) -> Path:
    path = layout.staging / "image"
    path.mkdir()
    return path


def resolve_or_skip(source: BootstrapImageSource, operation: Operation, reference: str = "mmdebstrap:host"):  # type: ignore[no-untyped-def]
    try:
        return source.resolve(ImageRequest(reference), operation)
    except BangerError as error:
        pytest.skip(f"the package mirror is out of reach: {error}")


def processes_below(directory: Path) -> list[str]:
    """Command lines that mention ``directory``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@needs_mirror
@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(
    not IS_SOAK, reason="a long one: make soak; the image of tests/e2e/test_e2e_run.py is held to the same"
)
def test_debian_is_bootstrapped_into_a_clean_file_system(source: BootstrapImageSource, staging: Path) -> None:
    operation = Operation("image.pull", "debian")
    notes: list[str] = []
    operation.subscribe(lambda event: notes.append(event.message) if event.kind is EventKind.NOTE else None)
    resolved = resolve_or_skip(source, operation)
    built = source.build(resolved, staging, operation)

    assert built.config.cmd == ("/bin/bash",)
    assert resolved.source == f"mmdebstrap:{host.codename}"
    assert built.digest == resolved.digest == source.resolve(ImageRequest("mmdebstrap:host"), operation).digest
    check_debian(built.rootfs)
    assert [path.name for path in staging.iterdir()] == ["rootfs.ext4"]
    assert "downloading packages with apt..." in notes
    assert [step.name for step in operation.steps][:2] == ["resolve reference", "bootstrap debian"]


@needs_mirror
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_bootstrap_cancelled_in_the_middle_ends_and_leaves_nothing(source: BootstrapImageSource, staging: Path) -> None:
    operation = Operation("image.pull", "debian")
    resolved = resolve_or_skip(source, operation)
    failures: list[BangerError] = []

    def build() -> None:
        try:
            source.build(resolved, staging, operation)
        except BangerError as error:
            failures.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    # The work directory has a /usr once packages are being extracted.
    eventually(lambda: list(staging.glob("mmdebstrap.*/usr")), timeout_s=60)
    started = time.monotonic()
    operation.cancel()
    thread.join()

    assert time.monotonic() - started < 8.0
    assert [error.kind for error in failures] == [ErrorKind.CANCELLED]
    assert list(staging.iterdir()) == []
    assert processes_below(staging) == []
    assert str(staging) not in Path("/proc/mounts").read_text(encoding="utf-8")


@needs_mirror
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_bootstrap_that_fails_tells_mmdebstraps_own_words(source: BootstrapImageSource, staging: Path) -> None:
    operation = Operation("image.pull", "debian")
    resolved = resolve_or_skip(source, operation)
    away = [replace(source, uri="http://127.0.0.1:1/debian") for source in resolved.token.sources]
    resolved = replace(resolved, token=replace(resolved.token, sources=tuple(away)))

    with pytest.raises(BangerError, match="cannot bootstrap") as failure:
        source.build(resolved, staging, operation)

    assert failure.value.kind is ErrorKind.UNAVAILABLE
    assert "apt-get update" in failure.value.cause or "127.0.0.1" in failure.value.cause
    assert "docker.io/library/debian" in failure.value.hint
    assert list(staging.iterdir()) == []


@needs_mirror
def test_digest_depends_on_what_is_asked_for(source: BootstrapImageSource) -> None:
    operation = Operation("image.pull", "debian")
    plain = resolve_or_skip(source, operation).digest

    assert resolve_or_skip(source, operation).digest == plain
    assert resolve_or_skip(source, operation, "mmdebstrap:host?include=curl").digest != plain


@needs_mirror
def test_unknown_suite_is_not_found_before_anything_is_built(source: BootstrapImageSource) -> None:
    operation = Operation("image.pull", "debian")
    resolve_or_skip(source, operation)

    with pytest.raises(BangerError, match='no suite "nosuchsuite"') as failure:
        source.resolve(ImageRequest("mmdebstrap:nosuchsuite"), operation)
    assert failure.value.kind is ErrorKind.NOT_FOUND


def test_foreign_platform_is_a_usage_error(source: BootstrapImageSource) -> None:
    with pytest.raises(BangerError, match="for this host only") as failure:
        source.resolve(ImageRequest("mmdebstrap:host", "linux/s390x"), Operation("image.pull", "debian"))
    assert failure.value.kind is ErrorKind.USAGE


def test_host_without_mmdebstrap_names_the_package(
    source: BootstrapImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banger.posix.programs.shutil.which", lambda *_, **__: None)

    with pytest.raises(BangerError) as failure:
        source.resolve(ImageRequest("mmdebstrap:host"), Operation("image.pull", "debian"))
    assert failure.value.kind is ErrorKind.UNAVAILABLE
    assert failure.value.hint == "apt-get install mmdebstrap"


def test_source_handles_its_own_scheme_only(source: BootstrapImageSource) -> None:
    assert source.handles(ImageRequest("mmdebstrap:bookworm"))
    assert not source.handles(ImageRequest("debian:bookworm"))
