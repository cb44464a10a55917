"""Snapshots as files: what goes in comes out, and what does not come from us does no harm."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from banger.bundle import snapshot_archive
from banger.bundle.layout_archive import LayoutWriter
from banger.bundle.snapshot_archive import ARTIFACT_TYPE, FILE_TYPE, RECORD_TYPE, LocalSnapshotArchives
from banger.core import codec
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Snapshot
from banger.core.operation import Operation
from banger.core.ports import ArchivedFile, Basis, SnapshotRecord
from banger.core.wire.vm_spec import VmSpec
from banger.oci.artifact import LocalBlob, manifest_bytes, to_json
from banger.oci.documents import OCI_MANIFEST

MEMORY_BYTES = 64 << 20
RECORD = SnapshotRecord(
    Snapshot(
        id="0123456789ab", name="ready", vm_id="ba9876543210", vm_name="web", image_id="i", kernel_id="k",
        spec=VmSpec("debian", memory_mib=64), storage="overlay", created_at=datetime(2026, 11, 29, tzinfo=UTC),
        memory_mib=64, details={"form": "-m 64"},
    ),
    Basis("debian", "docker.io/library/debian", "sha256:1"), Basis("cloud", "apt:x", "sha256:2"), {"the image": "a" * 64},
)  # fmt: skip


@pytest.fixture
def archives():
    return LocalSnapshotArchives()


@pytest.fixture
def operation():
    return Operation("snapshot.export", "ready")


@pytest.fixture
def directory(tmp_path):
    """A snapshot with a little in a large sparse memory."""
    place = tmp_path / "snapshot"
    for name, data in (
        ("disk/disk.ext4", b"state"), ("machine/memory", b""), ("machine/devices", b"state"),
    ):  # fmt: skip  # two of them are equal
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    with (place / "machine/memory").open("r+b") as memory:
        memory.truncate(MEMORY_BYTES)
        memory.seek(40 << 20)
        memory.write(b"secret")
    (place / "snapshot.json").write_text("{}")
    return place


@pytest.fixture
def exported(archives, directory, operation, tmp_path):
    target = tmp_path / "ready.snapshot"
    archives.export(RECORD, directory, target, operation)
    return target


def unpacked(archives, path, operation, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    archives.unpack(path, into, operation)
    return into


def test_what_goes_in_comes_out_sparse_and_private(archives, exported, directory, operation, tmp_path):
    assert (exported.stat().st_mode & 0o777, exported.stat().st_size < 1 << 20) == (0o600, True)
    record = archives.read(exported)
    assert (record.snapshot, record.sums, record.image.name) == (RECORD.snapshot, RECORD.sums, "debian")
    assert [file.path for file in record.files] == ["disk/disk.ext4", "machine/devices", "machine/memory"]
    into = unpacked(archives, exported, operation, tmp_path)
    for file in record.files:
        assert (into / file.path).read_bytes() == (directory / file.path).read_bytes()
        assert (into / file.path).stat().st_mode & 0o777 == 0o400
    assert (into / "machine/memory").stat().st_blocks * 512 <= 1 << 20
    assert sorted(path.name for path in into.iterdir()) == ["disk", "machine"]


def test_file_that_is_there_stays(archives, exported, directory, operation):
    before = exported.read_bytes()
    with pytest.raises(BangerError) as caught:
        archives.export(RECORD, directory, exported, operation)
    assert (caught.value.kind, exported.read_bytes() == before) == (ErrorKind.ALREADY_EXISTS, True)


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_every_damage_is_told_and_nothing_outside_is_written(archives, exported, operation, tmp_path, at):
    data = bytearray(exported.read_bytes())
    with tarfile.open(exported) as tar:  # in the middle of a blob, where no header's sum protects it
        largest = max(tar.getmembers(), key=lambda member: member.size)
    data[largest.offset_data + int(largest.size * at)] ^= 1
    exported.write_bytes(data)
    with pytest.raises(BangerError) as caught:
        unpacked(archives, exported, operation, tmp_path)
    assert caught.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize("length", [0, 1000, 5000])
def test_archive_that_ends_early_is_none(archives, exported, length):
    exported.write_bytes(exported.read_bytes()[:length])
    with pytest.raises(BangerError) as caught:
        archives.read(exported)
    assert caught.value.kind is ErrorKind.INVALID


def forged(path, record, *, layers=1):
    """An archive whose record says what somebody likes."""
    with path.open("w+b") as file:
        writer = LayoutWriter(file)
        blob = LocalBlob.of_bytes(FILE_TYPE, b"no frame")
        config = LocalBlob.of_bytes(RECORD_TYPE, to_json(record))
        document = manifest_bytes(ARTIFACT_TYPE, config, [blob] * layers, {})
        manifest = LocalBlob.of_bytes(OCI_MANIFEST, document)
        writer.finish(manifest, [config, blob], {"artifactType": ARTIFACT_TYPE})
    return path


def saying(*files, **changes):
    return {**codec.to_plain(replace(RECORD, files=files)), **changes}


GOOD = ArchivedFile("disk/disk.ext4", 9, "0" * 64)


@pytest.mark.parametrize(
    "record",
    [
        saying(),
        saying(GOOD, GOOD),
        *(saying(replace(GOOD, path=path)) for path in (
            "../evil", "/etc/passwd", "disk/../../evil", "disk/", "disk/.hidden", "other/file", "disk/a/b", "disk/a\n", "disk"
        )),
        saying(replace(GOOD, size_bytes=-1)),
        saying(replace(GOOD, size_bytes=1 << 60)),
        saying(replace(GOOD, sha256="x")),
        saying(GOOD, snapshot="none"),
        saying(GOOD, image=[]),
        [],
        "text",
    ],
    ids=str,
)  # fmt: skip
def test_record_that_makes_no_sense_is_refused(archives, tmp_path, record):
    path = forged(
        tmp_path / "forged", record, layers=2 if isinstance(record, dict) and len(record["files"]) == 2 else 1
    )
    with pytest.raises(BangerError) as caught:
        archives.read(path)
    assert caught.value.kind is ErrorKind.INVALID


def test_content_that_is_no_sparse_stream_is_refused(archives, operation, tmp_path):
    path = forged(tmp_path / "forged", saying(GOOD))
    with pytest.raises(BangerError) as caught:
        unpacked(archives, path, operation, tmp_path)
    assert (caught.value.kind, "disk/disk.ext4" in caught.value.cause) == (ErrorKind.INVALID, True)


def test_file_that_is_larger_than_it_says_is_refused(archives, exported, operation, tmp_path, monkeypatch):
    real = snapshot_archive._parsed

    def lying(archive):
        record, artifact = real(archive)
        return replace(record, files=tuple(replace(file, size_bytes=4096) for file in record.files)), artifact

    monkeypatch.setattr(snapshot_archive, "_parsed", lying)
    with pytest.raises(BangerError, match="damaged"):
        unpacked(archives, exported, operation, tmp_path)


def test_other_archives_are_none(archives, tmp_path):
    for name, data in (("a.json", json.dumps({}).encode()), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BangerError):
            archives.read(tmp_path / name)
    with pytest.raises(BangerError) as caught:
        archives.read(tmp_path / "nothing")
    assert caught.value.kind is ErrorKind.NOT_FOUND
