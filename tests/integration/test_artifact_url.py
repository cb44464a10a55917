"""Kernels from web servers."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.kernels.url_source import UrlKernelSource
from banger.layout import Layout
from banger.rootfs.ext4.reader import Ext4Reader
from tests.support.faulty_registry import (
    Content,
    Exchange,
    Fault,
    FaultyRegistry,
    announcing,
    chunked,
    corrupted,
    faulty_registry,
    redirecting,
    replaced,
    status,
    truncated,
    without_ranges,
)
from tests.unit.test_kernels_image_file import RELEASE, bzimage

FILE = bzimage(b"payload") + bytes(range(256)) * 8000


@pytest.fixture(autouse=True)
def amd64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture
def server() -> Iterator[FaultyRegistry]:
    with faulty_registry() as server:
        yield server


class Machine:
    def __init__(self, root: Path) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(root)})
        self.layout.make_directories()
        self.staged = self.layout.staging / "kernel"
        self.staged.mkdir()
        self.source = UrlKernelSource(self.layout, Config.load(self.layout.config_file, {}))

    def pull(self, source: str) -> BuiltKernel:
        request = KernelRequest(source=source, cmdline="quiet")
        assert self.source.handles(request)
        return self.source.build(request, self.staged, Operation("kernel.pull", "x"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


def serve(server: FaultyRegistry, body: bytes, path: str = "/kernel") -> str:
    server.contents[path] = Content(body, "application/octet-stream")
    return f"http://{server.host}{path}#sha256={hashlib.sha256(body).hexdigest()}"


def honestly(exchange: Exchange) -> None:
    """The answer to the question for the length: the fault comes after it."""
    exchange.honest()


def huge(exchange: Exchange) -> None:
    exchange.send(200, {}, b"", length=1 << 40)


def archive(*names: str, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            data = FILE if "vmlinu" in name else b"x"
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return gzip.compress(buffer.getvalue())


def test_bare_kernel_is_downloaded(server: FaultyRegistry, machine: Machine) -> None:
    source = serve(server, FILE)
    built = machine.pull(source)
    assert (machine.staged / "vmlinuz").read_bytes() == FILE
    assert (built.version, built.source, built.cmdline) == (RELEASE, source, "quiet")
    assert not built.has_modules


@pytest.mark.parametrize(
    "names",
    [
        ("vmlinuz", "modules/modules.dep", "initrd"),
        (f"./boot/vmlinuz-{RELEASE}", f"./lib/modules/{RELEASE}/modules.dep", f"./boot/initrd.img-{RELEASE}"),
        (f"boot/vmlinuz-{RELEASE}", f"usr/lib/modules/{RELEASE}/modules.dep", f"boot/initramfs-{RELEASE}.img"),
    ],
)
def test_archive_of_each_known_shape_is_taken_apart(
    server: FaultyRegistry, machine: Machine, names: tuple[str, ...]
) -> None:
    built = machine.pull(serve(server, archive(*names, "boot/config", "lib/other")))
    assert sorted(path.name for path in machine.staged.iterdir()) == [
        "initrd",
        "kernel.json",
        "modules.ext4",
        "vmlinuz",
    ]
    with Ext4Reader(machine.staged / "modules.ext4") as tree:
        assert tree.find(b"modules.dep") is not None
    assert built.has_modules
    assert built.has_initrd


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (archive("README"), "no kernel"),
        (archive("vmlinuz-1", "vmlinuz-2"), "more than one kernel"),
        (archive("vmlinuz", "lib/modules/1/a", "lib/modules/2/a"), "more than one module tree"),
        (archive("vmlinuz", links={"modules": "/etc"}), "leads out"),
        (archive("../vmlinuz"), "upwards"),
        (archive("README", links={"vmlinuz": "README"}), "no kernel"),
        (b"\x1f\x8b\x08garbage", "gzip data"),
        (b"#!/bin/sh\n" * 100, "not a Linux kernel"),
        (b"", "not a Linux kernel"),
    ],
    ids=["none", "two", "two trees", "link out", "upwards", "kernel is a link", "damaged", "script", "empty"],
)
def test_download_that_is_no_kernel_is_refused(
    server: FaultyRegistry, machine: Machine, body: bytes, cause: str
) -> None:
    with pytest.raises(BangerError, match=cause) as caught:
        machine.pull(serve(server, body))
    assert caught.value.kind is ErrorKind.INVALID
    assert not (machine.staged / ".unpacked").exists()


def test_other_content_than_promised_is_refused(server: FaultyRegistry, machine: Machine) -> None:
    source = serve(server, FILE)
    server.always("/kernel", corrupted())
    with pytest.raises(BangerError) as caught:
        machine.pull(source)
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("fault", [truncated(after=300_000), status(503), without_ranges()])
def test_broken_download_is_completed(server: FaultyRegistry, machine: Machine, fault: Fault) -> None:
    source = serve(server, FILE)
    server.on("/kernel", honestly, fault)
    machine.pull(source)
    assert (machine.staged / "vmlinuz").read_bytes() == FILE


def test_download_goes_on_where_it_broke_off(server: FaultyRegistry, machine: Machine) -> None:
    source = serve(server, FILE)
    server.on("/kernel", honestly, truncated(after=300_000))
    machine.pull(source)
    ranges = [asked.headers.get("range", "") for asked in server.requests]
    assert ranges == ["", "", "bytes=300000-"]


def test_kernel_that_is_here_is_not_downloaded_again(server: FaultyRegistry, machine: Machine, tmp_path: Path) -> None:
    source = serve(server, FILE)
    machine.pull(source)
    asked = len(server.requests)
    (machine.staged / "vmlinuz").unlink()
    machine.pull(source)
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (status(404), ErrorKind.NOT_FOUND, "404"),
        (status(403), ErrorKind.DENIED, "403"),
        (status(418), ErrorKind.UNAVAILABLE, "418"),
        (chunked(), ErrorKind.UNAVAILABLE, "how long"),
        (announcing("²"), ErrorKind.UNAVAILABLE, "how long"),
        (announcing("9" * 5000), ErrorKind.UNAVAILABLE, "how long"),
        (huge, ErrorKind.INVALID, "larger than"),
        (redirecting("http://198.51.100.1/kernel"), ErrorKind.DENIED, "not https"),
        (redirecting("file:///etc/passwd"), ErrorKind.DENIED, "not https"),
        (redirecting("/kernel"), ErrorKind.UNAVAILABLE, "circles"),
        (replaced(b"short"), ErrorKind.INVALID, ""),
    ],
    ids=[
        "404",
        "403",
        "418",
        "no length",
        "odd length",
        "absurd length",
        "huge",
        "redirect to http",
        "redirect to a file",
        "circle",
        "another",
    ],
)
def test_server_that_does_not_serve_it_is_a_clear_error(
    server: FaultyRegistry, machine: Machine, fault: Fault, kind: ErrorKind, words: str
) -> None:
    source = serve(server, FILE)
    server.always("/kernel", fault)
    with pytest.raises(BangerError) as caught:
        machine.pull(source)
    assert caught.value.kind is kind
    assert words in str(caught.value)


def test_redirect_is_followed(server: FaultyRegistry, machine: Machine) -> None:
    source = serve(server, FILE)
    server.contents["/moved"] = server.contents.pop("/kernel")
    server.always("/kernel", redirecting("/moved"))
    machine.pull(source)
    assert (machine.staged / "vmlinuz").read_bytes() == FILE


def test_redirect_to_what_is_no_address_is_told(server: FaultyRegistry, machine: Machine) -> None:
    source = serve(server, FILE)
    server.always("/kernel", redirecting("https://[::1/x"))
    with pytest.raises(BangerError) as caught:
        machine.pull(source)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "Invalid IPv6 URL" in caught.value.cause


def test_plain_http_to_another_host_is_denied_before_anything_is_sent(machine: Machine) -> None:
    with pytest.raises(BangerError) as caught:
        machine.pull("http://198.51.100.1/kernel#sha256=" + "0" * 64)
    assert caught.value.kind is ErrorKind.DENIED
    assert "registry.insecure" in caught.value.hint


def test_server_that_is_not_there_is_unavailable(machine: Machine) -> None:
    with faulty_registry() as server:
        host = server.host
    with pytest.raises(BangerError, match="refused") as caught:
        machine.pull(f"http://{host}/kernel#sha256=" + "0" * 64)
    assert caught.value.kind is ErrorKind.UNAVAILABLE
