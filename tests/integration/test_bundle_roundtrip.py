"""Whole images through files and registries: what comes back is the same, byte by byte, or is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from banger.bundle import contents, disks
from banger.bundle.contents import BundleInput
from banger.bundle.export import export_bundle, export_oci_image, push_oci_image
from banger.bundle.layout_reader import LayoutArchive
from banger.bundle.manifest import ARTIFACT_TYPE, MANIFEST_TYPE, ROOTFS_TYPE, BundleManifest, Disk
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, ImageConfig, Kernel
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest
from banger.core.wire.sizes import DefaultSizes
from banger.oci.artifact import LocalBlob, manifest_bytes
from banger.oci.documents import OCI_MANIFEST, parse_descriptor
from banger.oci.manifest import find_manifest
from banger.oci.platform import Platform
from banger.oci.source import OciImageSource
from banger.rootfs.build import build_from_directory
from banger.rootfs.disk import make_disk
from tests.support.bundles import Machine
from tests.support.faulty_registry import FaultyRegistry, corrupted, faulty_registry, stalled, truncated
from tests.support.oci_client import Puller
from tests.support.registry import LocalRegistry, needs_registry, running_registry
from tests.support.waiting import eventually

PLATFORM = str(Platform.host())
CONFIG = ImageConfig(env=("A=b",), cmd=("/bin/sh",), labels={"x": "y"})
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> BundleInput:
    """An image with holes, a seed and two megabytes that do not compress."""
    directory, tree = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("tree")
    (tree / "etc").mkdir()
    (tree / "etc/hostname").write_text("original\n")
    (tree / "random").write_bytes(os.urandom(2_000_000))
    (tree / "link").symlink_to("etc/hostname")
    operation = Operation("image.pull", "x")
    stats = build_from_directory(tree, directory / "rootfs.ext4", operation=operation, size_bytes=64 << 20)
    make_disk(directory / "seed.ext4", 16 << 20, "seed")
    image = Image(
        id="i", name="my/image:1", source="docker.io/library/x", digest="mmdebstrap:bookworm#1", platform=PLATFORM,
        size_bytes=stats.size_bytes, disk_bytes=stats.disk_bytes, created_at=clock.now(), config=CONFIG, has_seed=True,
        defaults=DefaultSizes(memory_mib=1024),
    )  # fmt: skip
    kernel = Kernel("k", "debian-cloud", "6.1", "apt:x", "sha256:" + "b" * 64, PLATFORM, "bzimage", 1, clock.now())
    return BundleInput(image, directory, kernel)


def assert_same(original: BundleInput, machine: Machine, built: BuiltImage) -> None:
    for name in ("rootfs.ext4", "seed.ext4"):
        assert (machine.staging / name).read_bytes() == (original.image_dir / name).read_bytes(), name
    assert built.rootfs == machine.staging / "rootfs.ext4"
    assert built.size_bytes == 64 << 20
    assert built.disk_bytes < 16 << 20  # holes stayed holes
    assert built.config == CONFIG
    manifest = BundleManifest.parse((machine.staging / "bundle.json").read_bytes())
    assert (manifest.name, manifest.image_digest) == ("my/image:1", original.image.digest)
    assert (manifest.kernel.name, manifest.kernel.digest) == ("debian-cloud", "sha256:" + "b" * 64)
    assert manifest.defaults == DefaultSizes(memory_mib=1024)


# -- files -----------------------------------------------------------------------------------------------------


def test_exported_bundle_comes_back_the_same(original: BundleInput, machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "my bundle.tar"
    digest = export_bundle(original, file, Operation("image.export", "x"))
    built = machine.pull(f"bundle-file:{file}")
    assert built.digest == digest
    assert_same(original, machine, built)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(machine.layout.blobs.glob("sha256/*")) == []  # a file is read where it lies


def test_equal_images_give_equal_files(original: BundleInput, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    copied.mkdir()
    for name in ("rootfs.ext4", "seed.ext4"):  # without holes
        (copied / name).write_bytes((original.image_dir / name).read_bytes())
    for source, name in ((original, "a"), (dataclasses.replace(original, image_dir=copied), "b")):
        export_bundle(source, tmp_path / name, Operation("image.export", "x"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_image_without_a_seed_and_file_of_the_users_own_travel_too(
    original: BundleInput, machine: Machine, tmp_path: Path
) -> None:
    own = tmp_path / "own.img"
    shutil.copyfile(original.image_dir / "rootfs.ext4", own)
    image = dataclasses.replace(original.image, has_seed=False, managed=False, rootfs_path=str(own))
    export_bundle(BundleInput(image, tmp_path / "none"), tmp_path / "b.tar", Operation("image.export", "x"))
    machine.pull(f"bundle-file:{tmp_path / 'b.tar'}")
    assert sorted(path.name for path in machine.staging.iterdir()) == ["bundle.json", "rootfs.ext4"]
    assert (machine.staging / "rootfs.ext4").read_bytes() == own.read_bytes()


def test_file_that_is_there_is_not_replaced(original: BundleInput, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("precious")
    with pytest.raises(BangerError) as caught:
        export_bundle(original, tmp_path / "b.tar", Operation("image.export", "x"))
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS
    assert (tmp_path / "b.tar").read_text() == "precious"


def full_disk(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_and_cancelling_leave_nothing(
    original: BundleInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = Operation("image.export", "x")
    monkeypatch.setattr(disks, "encode", lambda *_: cancelled.token.cancel() or cancelled.token.raise_if_cancelled())
    for fault, operation, kind in (
        (disks.encode, cancelled, ErrorKind.CANCELLED),
        (full_disk, Operation("image.export", "x"), ErrorKind.EXHAUSTED),
    ):
        monkeypatch.setattr(disks, "encode", fault)
        with pytest.raises(BangerError) as caught:
            export_bundle(original, tmp_path / "b.tar", operation)
        assert caught.value.kind is kind
        assert list(tmp_path.iterdir()) == []


def test_file_system_that_is_no_ext4_is_not_exported(original: BundleInput, tmp_path: Path) -> None:
    (tmp_path / "rootfs.ext4").write_bytes(bytes(1 << 20))
    image = dataclasses.replace(original.image, has_seed=False)
    with pytest.raises(BangerError) as caught:
        export_bundle(BundleInput(image, tmp_path), tmp_path / "b.tar", Operation("image.export", "x"))
    assert caught.value.kind is ErrorKind.INVALID
    assert not (tmp_path / "b.tar").exists()


def test_image_that_nobody_could_pull_is_not_exported(original: BundleInput, tmp_path: Path) -> None:
    image = dataclasses.replace(original.image, config=ImageConfig(user="x" * 10_000))
    with pytest.raises(BangerError, match="nobody could pull it") as caught:
        export_bundle(dataclasses.replace(original, image=image), tmp_path / "b", Operation("image.export", "x"))
    assert caught.value.kind is ErrorKind.INVALID
    assert not (tmp_path / "b").exists()


def test_relative_path_is_a_usage_error(machine: Machine) -> None:
    with pytest.raises(BangerError) as caught:
        machine.pull("bundle-file:b.tar")
    assert caught.value.kind is ErrorKind.USAGE
    assert "bundle-file:/" in caught.value.hint


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
def test_damaged_or_truncated_file_is_refused(
    original: BundleInput, machine: Machine, tmp_path: Path, part: float
) -> None:
    file = tmp_path / "b.tar"
    export_bundle(original, file, Operation("image.export", "x"))
    data = file.read_bytes()
    at = int(len(data) * part)
    for damaged in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
        file.write_bytes(damaged)
        with pytest.raises(BangerError) as caught:
            machine.pull(f"bundle-file:{file}")
        assert caught.value.kind is ErrorKind.INVALID
        assert not (machine.staging / "rootfs.ext4").exists() or part == 0.99


def test_blob_that_is_not_the_one_the_manifest_names_is_refused_though_its_content_is_the_same(
    original: BundleInput, machine: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar"
    export_bundle(original, file, Operation("image.export", "x"))
    with LayoutArchive(file) as archive:
        manifest, _ = archive.manifest(lambda _: True)
        blob = parse_descriptor(manifest["layers"][0], "the layer")
        with archive.open_blob(blob) as stream:
            packed = stream.read()
    content = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    smaller = zstandard.ZstdCompressor(level=9).compress(content)
    filler = len(packed) - len(smaller) - 8
    assert filler >= 0
    skipped = b"\x50\x2a\x4d\x18" + filler.to_bytes(4, "little") + bytes(filler)  # RFC 8878, "Skippable Frames"
    file.write_bytes(file.read_bytes().replace(packed, smaller + skipped))
    with pytest.raises(BangerError, match="damaged") as caught:
        machine.pull(f"bundle-file:{file}")
    assert caught.value.kind is ErrorKind.INVALID


# -- registries ------------------------------------------------------------------------------------------------


@pytest.mark.registry
@needs_registry
def test_pushed_bundle_comes_back_the_same(
    original: BundleInput, machine: Machine, registry: LocalRegistry, tmp_path: Path
) -> None:
    reference = registry.reference("bundles/mine:1")
    digest = machine.push(original, reference)
    built = machine.pull(f"bundle:{reference}")
    assert built.digest == digest
    assert_same(original, machine, built)
    assert machine.push(original, reference) == digest
    assert export_bundle(original, tmp_path / "b.tar", Operation("image.export", "x")) == digest
    assert [path.name for path in machine.layout.staging.iterdir()] == ["image"]


@pytest.mark.registry
@needs_registry
@needs_skopeo
def test_exported_file_can_be_pushed_by_other_tools(
    original: BundleInput, machine: Machine, registry: LocalRegistry, tmp_path: Path
) -> None:
    file, reference = tmp_path / "b.tar", registry.reference("bundles/skopeo:1")
    digest = export_bundle(original, file, Operation("image.export", "x"))
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci-archive:{file}", f"docker://{reference}"], check=True
    )
    built = machine.pull(f"bundle:{reference}")
    assert built.digest == digest
    assert_same(original, machine, built)


@pytest.mark.registry
@needs_registry
def test_bundle_that_another_source_came_upon_is_adopted(
    original: BundleInput, machine: Machine, registry: LocalRegistry, tmp_path: Path
) -> None:
    reference = registry.reference("bundles/found:1")
    digest = machine.push(original, reference)
    client = Puller(tmp_path / "blobs").client(reference)
    document, found = find_manifest(client, Platform.host())
    adopted = machine.source.adopt(client, document, found, ImageRequest(reference))
    assert (machine.source.made(adopted), adopted.digest) == (True, digest)
    machine.staging.mkdir()
    assert_same(original, machine, machine.source.build(adopted, machine.staging, machine.operation))
    with pytest.raises(BangerError, match="is a bundle, whose file system has its size already"):
        machine.source.adopt(client, document, found, ImageRequest(reference, size_bytes=1 << 30))
    assert machine.source.adopt(client, {"config": {}}, found, ImageRequest("x")) is None


@pytest.mark.registry
@needs_registry
@needs_skopeo
def test_image_given_away_as_oci_image_is_one_to_other_tools_and_to_banger(
    original: BundleInput, machine: Machine, registry: LocalRegistry, tmp_path: Path
) -> None:
    file, reference = tmp_path / "oci.tar", registry.reference("plain/mine:1")
    digest = export_oci_image(original.image, original.image_dir, file, Operation("image.export", "x"))
    pushed = push_oci_image(
        machine.layout, machine.config, original.image, original.image_dir, reference,
        operation=Operation("image.push", "x"),
    )  # fmt: skip
    assert pushed == digest
    for source in (f"oci-archive:{file}", f"docker://{reference}"):
        done = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", "--config", source], capture_output=True, check=True
        )
        assert json.loads(done.stdout)["config"] == {"Env": ["A=b"], "Cmd": ["/bin/sh"], "Labels": {"x": "y"}}
    puller = OciImageSource(machine.layout, machine.config, {})
    machine.staging.mkdir()
    operation = Operation("image.pull", "x")
    built = puller.build(puller.resolve(ImageRequest(reference), operation), machine.staging, operation)
    assert built.config == CONFIG
    listing = subprocess.run(
        ["debugfs", "-R", "cat /etc/hostname", built.rootfs], capture_output=True, check=True, text=True
    )
    assert listing.stdout == "original\n"


@pytest.mark.registry
@needs_registry
def test_container_image_and_kernel_are_no_bundles(machine: Machine, registry: LocalRegistry) -> None:
    registry.push("plain/image:1", [])
    with pytest.raises(BangerError, match="bundle") as caught:
        machine.pull(f"bundle:{registry.reference('plain/image:1')}")
    assert caught.value.kind is ErrorKind.INVALID


# -- what somebody else may have made --------------------------------------------------------------------------


def forged(
    original: BundleInput, directory: Path, change: Callable[[bytes, Disk], tuple[bytes, Disk]]
) -> tuple[bytes, list[LocalBlob]]:
    """A bundle whose parts are consistent by digest, after ``change`` of the packed file system and its description."""
    with (directory / "packed").open("wb+") as sink:
        disk, _, _ = disks.pack_disk(
            original.image_dir / "rootfs.ext4", sink, Operation("x.x", "x").token, lambda _: None
        )
        sink.seek(0)
        packed, disk = change(sink.read(), disk)
    document = BundleManifest("forged", "", "", PLATFORM, "", disk).to_bytes()
    blobs = [LocalBlob.of_bytes(MANIFEST_TYPE, document), LocalBlob.of_bytes(ROOTFS_TYPE, packed)]
    return manifest_bytes(ARTIFACT_TYPE, blobs[0], blobs[1:], {}), blobs


def repacked(directory: Path, edit: Callable[[bytearray], None], original: BundleInput) -> tuple[bytes, Disk]:
    """An honest packing of an edited file system."""
    raw = bytearray((original.image_dir / "rootfs.ext4").read_bytes())
    edit(raw)
    (directory / "edited").write_bytes(raw)
    with (directory / "out").open("wb") as sink:
        disk, _, _ = disks.pack_disk(directory / "edited", sink, Operation("x.x", "x").token, lambda _: None)
    return (directory / "out").read_bytes(), disk


def break_bitmap(raw: bytearray) -> None:
    """Mark every block of the first group free."""
    bitmap = int.from_bytes(raw[4096:4100], "little") * 4096
    raw[bitmap : bitmap + 4096] = bytes(4096)


FORGERIES: dict[str, tuple[str, Callable[[bytes, Disk], tuple[bytes, Disk]]]] = {
    "another uuid": ("UUID", lambda p, d: (p, dataclasses.replace(d, uuid="11111111-1111-1111-1111-111111111111"))),
    "another content": ("content is", lambda p, d: (p, dataclasses.replace(d, sha256="0" * 64))),
    "another size": ("not of", lambda p, d: (p, dataclasses.replace(d, size_bytes=d.size_bytes + 4096))),
    "not compressed": ("zstd", lambda p, d: (b"bgsparse" * 100, d)),
    "truncated": ("", lambda p, d: (p[:-100], d)),
    "garbage behind": ("", lambda p, d: (p + b"x" * 100, d)),
    "a second frame behind": ("something else", lambda p, d: (p + p, d)),
    "empty": ("", lambda p, d: (b"", d)),
}


@pytest.mark.parametrize(("cause", "change"), FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_bundle_is_refused_and_leaves_no_file(
    original: BundleInput, machine: Machine, tmp_path: Path, cause: str, change: Callable[..., Any]
) -> None:
    with faulty_registry() as server:
        body, blobs = forged(original, tmp_path, change)
        serve(server, body, blobs)
        with pytest.raises(BangerError) as caught:
            machine.pull(f"bundle:{server.reference('b')}")
    assert caught.value.kind is ErrorKind.INVALID
    assert cause in str(caught.value)
    assert list(machine.staging.iterdir()) == []


def test_damaged_file_system_is_refused_though_all_digests_fit(
    original: BundleInput, machine: Machine, tmp_path: Path
) -> None:
    with faulty_registry() as server:
        body, blobs = forged(original, tmp_path, lambda *_: repacked(tmp_path, break_bitmap, original))
        serve(server, body, blobs)
        with pytest.raises(BangerError, match="damaged") as caught:
            machine.pull(f"bundle:{server.reference('b')}")
    assert caught.value.kind is ErrorKind.INVALID
    assert list(machine.staging.iterdir()) == []


def serve(server: FaultyRegistry, body: bytes, blobs: list[LocalBlob]) -> None:
    server.serve_manifest("b:latest", body, OCI_MANIFEST)
    for blob in blobs:
        server.serve_blob("b", blob.data)


def unchanged(packed: bytes, disk: Disk) -> tuple[bytes, Disk]:
    return packed, disk


def test_broken_transfer_is_resumed_and_tampered_blob_refused(
    original: BundleInput, machine: Machine, tmp_path: Path
) -> None:
    with faulty_registry() as server:
        body, blobs = forged(original, tmp_path, unchanged)
        serve(server, body, blobs)
        server.on(blobs[1].digest, truncated(after=500_000))
        machine.pull(f"bundle:{server.reference('b')}")
        assert [asked.headers.get("range", "") for asked in server.asked(blobs[1].digest)] == ["", "bytes=500000-"]
        machine.layout.blobs.joinpath("sha256", blobs[1].digest[7:]).unlink()
        server.always(blobs[1].digest, corrupted())
        with pytest.raises(BangerError) as caught:
            machine.pull(f"bundle:{server.reference('b')}")
    assert caught.value.kind is ErrorKind.INVALID


def test_cancelled_pull_ends_within_a_second_and_is_resumed(
    original: BundleInput, machine: Machine, tmp_path: Path
) -> None:
    with faulty_registry() as server:
        body, blobs = forged(original, tmp_path, unchanged)
        serve(server, body, blobs)
        server.on(blobs[1].digest, stalled(after=500_000))
        errors: list[BangerError] = []

        def pull() -> None:
            with pytest.raises(BangerError) as caught:
                machine.pull(f"bundle:{server.reference('b')}")
            errors.append(caught.value)

        worker = threading.Thread(target=pull)
        worker.start()
        part = machine.layout.blobs / "sha256" / f"{blobs[1].digest[7:]}.part"
        eventually(lambda: part.exists() and part.stat().st_size > 400_000)
        machine.operation.cancel()
        worker.join(1)
        assert [error.kind for error in errors] == [ErrorKind.CANCELLED]
        machine.operation = Operation("image.pull", "again")
        machine.pull(f"bundle:{server.reference('b')}")
        assert server.asked(blobs[1].digest)[-1].headers["range"].startswith("bytes=")


@pytest.mark.registry
@needs_registry
def test_push_cancelled_while_packing_leaves_neither_files_nor_a_manifest(
    original: BundleInput, machine: Machine, registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = Operation("image.push", "x")
    real = disks.pack_disk

    def pack(file: Path, sink: Any, token: Any, progress: Any) -> Any:
        if file.name == "seed.ext4":
            operation.cancel()
        return real(file, sink, token, progress)

    monkeypatch.setattr(contents, "pack_disk", pack)
    with pytest.raises(BangerError) as caught:
        machine.push(original, registry.reference("bundles/cancelled:1"), operation)
    assert caught.value.kind is ErrorKind.CANCELLED
    assert list(machine.layout.staging.iterdir()) == []
    with pytest.raises(BangerError) as caught:
        machine.pull(f"bundle:{registry.reference('bundles/cancelled:1')}")
    assert caught.value.kind is ErrorKind.NOT_FOUND
