"""Kernels through a real registry: what was pushed comes back byte by byte, and nothing else is accepted."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.config import Config
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Kernel
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.kernels.artifact_source import KernelArtifactSource
from banger.kernels.file_source import FileKernelSource
from banger.layout import Layout
from banger.oci import artifact_kernel as formats
from banger.oci.artifact import LocalBlob, manifest_bytes
from banger.oci.documents import OCI_INDEX, OCI_MANIFEST
from banger.oci.push_kernel import push_kernel
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.tree_tar import TreeTar
from tests.support.faulty_registry import FaultyRegistry, corrupted, faulty_registry, stalled, truncated
from tests.support.registry import LocalRegistry, needs_registry, running_registry, to_json
from tests.unit.test_kernels_image_file import RELEASE, bzimage

pytestmark = [pytest.mark.registry, needs_registry]

LOGIN = ("alice", "s3cret")
FILE = bzimage(b"payload")


@pytest.fixture(autouse=True)
def amd64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


class Machine:
    """One installation, as far as kernels go."""

    def __init__(self, root: Path, credentials: dict[str, Any] | None = None) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(root)})
        self.layout.make_directories()
        file = root / "docker.json"
        file.write_text(json.dumps(credentials or {}))
        self.config = Config.load(self.layout.config_file, {"BANGER_REGISTRY_CREDENTIALS": str(file)})
        self.source = KernelArtifactSource(self.layout, self.config)
        self.operation = Operation("kernel.pull", "x")

    def pull(self, reference: str) -> tuple[BuiltKernel, Path]:
        staged = self.layout.staging / "kernel"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        request = KernelRequest(source=f"oci:{reference}")
        assert self.source.handles(request)
        return self.source.build(request, staged, self.operation), staged

    def push(self, kernel: Kernel, directory: Path, reference: str) -> str:
        operation = Operation("kernel.push", "x")
        return push_kernel(self.layout, self.config, kernel, directory, reference, operation=operation)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


@pytest.fixture
def kernel_dir(tmp_path: Path) -> Path:
    given = tmp_path / "given"
    (given / "modules/kernel/fs").mkdir(parents=True)
    (given / "vmlinuz").write_bytes(FILE)
    (given / "initrd.img").write_bytes(os.urandom(100_000))
    (given / "modules/kernel/fs/overlay.ko").write_bytes(os.urandom(300_000))
    (given / "modules/kernel/fs/alias.ko").symlink_to("overlay.ko")
    (given / "modules/modules.dep").write_text("kernel/fs/overlay.ko:\n")
    directory = tmp_path / "kernel"
    directory.mkdir()
    request = KernelRequest(
        kernel_path=str(given / "vmlinuz"), modules_path=str(given / "modules"), initrd_path=str(given / "initrd.img")
    )
    FileKernelSource().build(request, directory, Operation("kernel.import", "x"))
    return directory


def kernel_at(directory: Path, **changes: Any) -> Kernel:
    facts = json.loads((directory / "kernel.json").read_text()) | {"cmdline": "quiet"} | changes
    return Kernel(id="k", name="linux", created_at=clock.now(), **facts)


def content(directory: Path) -> dict[str, str]:
    """Name to digest of the files; the module disk counts by what is in it."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.glob("[vi]*")}
    if (directory / "modules.ext4").exists():
        with Ext4Reader(directory / "modules.ext4") as tree:
            digest = hashlib.sha256()
            for chunk in TreeTar(tree).chunks():
                digest.update(chunk)
        found["modules.ext4"] = digest.hexdigest()
    return found


def modules_in(directory: Path) -> list[str]:
    with Ext4Reader(directory / "modules.ext4") as tree:
        return [path.decode() for path, _ in tree.walk() if path]


def test_pushed_kernel_comes_back_the_same(registry: LocalRegistry, machine: Machine, kernel_dir: Path) -> None:
    kernel, reference = kernel_at(kernel_dir), registry.reference("kernels/linux:6.1")
    digest = machine.push(kernel, kernel_dir, reference)
    built, staged = machine.pull(reference)
    assert content(staged) == content(kernel_dir)
    assert (built.digest, built.version, built.cmdline) == (kernel.digest, RELEASE, "quiet")
    assert built.has_modules
    assert built.has_initrd
    assert modules_in(staged) == [
        "kernel", "kernel/fs", "kernel/fs/alias.ko", "kernel/fs/overlay.ko", "modules.dep",
    ]  # fmt: skip
    assert built.source == f"oci:{reference}"
    assert machine.push(kernel, kernel_dir, reference) == digest
    pinned = machine.pull(f"{registry.reference('kernels/linux')}@{digest}")[0]
    assert pinned.digest == kernel.digest
    assert sorted(path.name for path in machine.layout.staging.iterdir()) == ["kernel"]


def test_kernel_without_modules_and_initrd_travels_too(
    registry: LocalRegistry, machine: Machine, tmp_path: Path
) -> None:
    directory = tmp_path / "bare"
    directory.mkdir()
    (tmp_path / "file").write_bytes(FILE)
    FileKernelSource().build(KernelRequest(kernel_path=str(tmp_path / "file")), directory, Operation("k", "x"))
    machine.push(kernel_at(directory), directory, registry.reference("kernels/bare"))
    built, staged = machine.pull(registry.reference("kernels/bare"))
    assert content(staged) == {"vmlinuz": hashlib.sha256(FILE).hexdigest()}
    assert not built.has_modules


def test_kernel_that_nobody_could_pull_is_not_pushed(
    registry: LocalRegistry, machine: Machine, kernel_dir: Path
) -> None:
    with pytest.raises(BangerError, match="nobody could pull it") as caught:
        machine.push(kernel_at(kernel_dir, cmdline="x" * 5000), kernel_dir, registry.reference("kernels/long"))
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_other_tools_copy_the_artifact(registry: LocalRegistry, machine: Machine, kernel_dir: Path) -> None:
    machine.push(kernel_at(kernel_dir), kernel_dir, registry.reference("kernels/original:1"))
    source, target = (f"docker://{registry.reference(name)}" for name in ("kernels/original:1", "kernels/copy:1"))
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", source, target], check=True
    )
    assert content(machine.pull(registry.reference("kernels/copy:1"))[1]) == content(kernel_dir)


def test_kernel_of_this_platform_is_taken_from_an_index(
    registry: LocalRegistry, machine: Machine, kernel_dir: Path
) -> None:
    digest = machine.push(kernel_at(kernel_dir), kernel_dir, registry.reference("kernels/multi:amd64"))
    other = manifest_of(registry, "kernels/multi", platform="linux/arm64")
    body = registry._call("GET", f"/v2/kernels/multi/manifests/{digest}", headers={"Accept": OCI_MANIFEST}).content
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": LocalBlob.of_bytes("", manifest).digest, "size": len(manifest),
         "platform": {"os": "linux", "architecture": architecture}}
        for manifest, architecture in ((other, "arm64"), (body, "amd64"))
    ]  # fmt: skip
    registry.push_manifest("kernels/multi", "all", to_json({"schemaVersion": 2, "manifests": entries}), OCI_INDEX)
    assert content(machine.pull(registry.reference("kernels/multi:all"))[1]) == content(kernel_dir)


# -- what somebody else may have pushed ----------------------------------------------------------------------


def manifest_of(
    registry: LocalRegistry,
    repository: str,
    modules: bytes | None = None,
    modules_type: str = formats.MODULES_GZIP_TYPE,
    kernel: bytes = FILE,
    **document: Any,
) -> bytes:
    """Push a hand-made artifact as ``latest``; returns its manifest."""
    stated = {"version": RELEASE, "platform": "linux/amd64", "format": "bzimage", **document}
    config = LocalBlob.of_bytes(formats.MANIFEST_TYPE, to_json(stated))
    layers = [LocalBlob.of_bytes(formats.IMAGE_TYPE, kernel, "../../../evil")]
    if modules is not None:
        layers.append(LocalBlob.of_bytes(modules_type, modules))
    for blob in (config, *layers):
        registry.push_blob(repository, blob.data)
    body = manifest_bytes(formats.ARTIFACT_TYPE, config, layers, {})
    registry.push_manifest(repository, LocalBlob.of_bytes("", body).digest, body, OCI_MANIFEST)
    registry.push_manifest(repository, "latest", body, OCI_MANIFEST)
    return body


def tar_of(name: str, **attributes: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        for key, value in attributes.items():
            setattr(info, key, value)
        tar.addfile(info)
    return buffer.getvalue()


def test_gzip_modules_of_another_tool_are_unpacked_without_links_to_headers(
    registry: LocalRegistry, machine: Machine, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "kernel").mkdir(parents=True)
    (tree / "modules.dep").write_text("")
    (tree / "build").symlink_to("/usr/src/linux-headers")
    done = subprocess.run(["tar", "-C", tree, "-cz", "."], capture_output=True, check=True)
    manifest_of(registry, "kernels/gzip", done.stdout)
    _, staged = machine.pull(registry.reference("kernels/gzip"))
    assert modules_in(staged) == ["kernel", "modules.dep"]


@pytest.mark.parametrize(
    ("name", "arguments", "cause"),
    [
        ("platform", {"platform": "linux/arm64"}, "linux/arm64"),
        ("version", {"version": "5.0.0"}, "5.0.0"),
        ("format", {"format": "elf"}, "elf"),
        ("escape", {"modules": gzip.compress(tar_of("../../evil"))}, "upwards"),
        ("device", {"modules": gzip.compress(tar_of("d", type=tarfile.CHRTYPE))}, "device"),
        ("damaged", {"modules": b"\x1f\x8b\x08garbage"}, "gzip data"),
        ("cmdline", {"cmdline": "a\nb"}, "cmdline"),
        ("no-kernel", {"kernel": b"#!/bin/sh\n" * 100}, ""),
    ],
)
def test_unsound_kernel_artifact_is_refused(
    registry: LocalRegistry, machine: Machine, name: str, arguments: dict[str, Any], cause: str
) -> None:
    manifest_of(registry, f"hostile/{name}", **arguments)
    with pytest.raises(BangerError) as caught:
        machine.pull(registry.reference(f"hostile/{name}"))
    assert caught.value.kind is ErrorKind.INVALID
    assert cause in str(caught.value)
    assert not (machine.layout.data.parent / "evil").exists()


def test_container_image_is_no_kernel(registry: LocalRegistry, machine: Machine) -> None:
    registry.push("test/image:1", [])
    with pytest.raises(BangerError, match="kernel") as caught:
        machine.pull(registry.reference("test/image:1"))
    assert caught.value.kind is ErrorKind.INVALID


def test_unknown_kernel_is_not_found(registry: LocalRegistry, machine: Machine) -> None:
    with pytest.raises(BangerError, match=r'kernel ".*none" not found') as caught:
        machine.pull(registry.reference("kernels/none"))
    assert caught.value.kind is ErrorKind.NOT_FOUND


@pytest.mark.skipif(shutil.which("htpasswd") is None, reason="htpasswd is not installed")
def test_private_registry_takes_the_credentials_of_docker_login(tmp_path: Path, kernel_dir: Path) -> None:
    with running_registry(tmp_path / "private", LOGIN) as private:
        reference = private.reference("kernels/linux:1")
        auths = {private.host: {"username": LOGIN[0], "password": LOGIN[1]}}
        member = Machine(tmp_path / "member", {"auths": auths})
        member.push(kernel_at(kernel_dir), kernel_dir, reference)
        assert content(member.pull(reference)[1]) == content(kernel_dir)
        stranger = Machine(tmp_path / "stranger")
        for act in (
            lambda: stranger.pull(reference),
            lambda: stranger.push(kernel_at(kernel_dir), kernel_dir, reference),
        ):
            with pytest.raises(BangerError) as caught:
                act()
            assert caught.value.kind is ErrorKind.DENIED
            assert caught.value.hint == f"docker login {private.host}"


# -- transfers that go wrong -----------------------------------------------------------------------------------


def served(server: FaultyRegistry) -> str:
    """A kernel of two megabytes in a scripted registry; returns the digest of its image blob."""
    config = LocalBlob.of_bytes(
        formats.MANIFEST_TYPE, to_json({"version": RELEASE, "platform": "linux/amd64", "format": "bzimage"})
    )
    image = LocalBlob.of_bytes(formats.IMAGE_TYPE, FILE + os.urandom(2_000_000))
    server.serve_manifest("k:latest", manifest_bytes(formats.ARTIFACT_TYPE, config, [image], {}), OCI_MANIFEST)
    for blob in (config, image):
        server.serve_blob("k", blob.data)
    return image.digest


def test_broken_transfer_is_resumed(machine: Machine) -> None:
    with faulty_registry() as server:
        digest = served(server)
        server.on(f"/blobs/{digest}", truncated(after=500_000))
        machine.pull(server.reference("k"))
        ranges = [asked.headers.get("range", "") for asked in server.asked(digest)]
    assert ranges == ["", "bytes=500000-"]


@pytest.mark.parametrize("which", ["image", "config"])
def test_tampered_blob_is_refused(machine: Machine, which: str) -> None:
    with faulty_registry() as server:
        digest = served(server)
        part = f"/blobs/{digest}" if which == "image" else "/blobs/"
        server.always(part, corrupted())
        with pytest.raises(BangerError) as caught:
            machine.pull(server.reference("k"))
    assert caught.value.kind is ErrorKind.INVALID
    assert not machine.layout.staging.joinpath("kernel/vmlinuz").exists()


def test_cancelled_pull_ends_within_a_second_and_can_be_resumed(machine: Machine) -> None:
    with faulty_registry() as server:
        digest = served(server)
        server.on(f"/blobs/{digest}", stalled(after=500_000))
        part = machine.layout.blobs / "sha256" / f"{digest[7:]}.part"
        errors: list[BangerError] = []

        def pull() -> None:
            with pytest.raises(BangerError) as caught:
                machine.pull(server.reference("k"))
            errors.append(caught.value)

        worker = threading.Thread(target=pull)
        worker.start()
        deadline = time.monotonic() + 10
        while not (part.exists() and part.stat().st_size >= 400_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
        machine.operation.cancel()
        worker.join(10)
        assert time.monotonic() - began < 5
        assert [error.kind for error in errors] == [ErrorKind.CANCELLED]
        assert part.stat().st_size > 0
        machine.operation = Operation("kernel.pull", "again")
        machine.pull(server.reference("k"))
        assert not part.exists()
