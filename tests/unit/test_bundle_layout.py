"""The image layout in a tar file: written in one pass, read by other tools, and read with suspicion."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from banger.bundle.layout_archive import LayoutWriter, _header
from banger.bundle.layout_reader import LayoutArchive
from banger.core.errors import BangerError, ErrorKind
from banger.oci.artifact import LocalBlob, digest_of, to_json
from banger.oci.documents import OCI_MANIFEST, Descriptor
from banger.rootfs.limits import Limits
from banger.rootfs.reader import ChunkReader
from banger.rootfs.tar import TarReader

BLOB = b"blob" * 1000
MANIFEST = LocalBlob.of_bytes(OCI_MANIFEST, b'{"layers":[]}')
DESCRIPTOR = Descriptor("text/plain", digest_of(BLOB), len(BLOB))


def write(path: Path) -> None:
    with path.open("wb") as file:
        writer = LayoutWriter(file)

        def pack(sink: Any) -> tuple[str, int]:
            sink.write(BLOB)
            return digest_of(BLOB), len(BLOB)

        blob = writer.put("text/plain", "title", pack)
        assert (blob.digest, blob.size) == (DESCRIPTOR.digest, DESCRIPTOR.size)
        writer.finish(MANIFEST, [LocalBlob.of_bytes("text/plain", b"small")], {"artifactType": "x"})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    write(path)
    return path


def test_archive_is_an_image_layout_to_other_readers(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads(content["index.json"])["manifests"]
    assert entry["digest"] == MANIFEST.digest
    assert content[f"blobs/sha256/{DESCRIPTOR.digest[7:]}"] == BLOB
    assert len(content) == 5


def test_equal_input_gives_an_equal_archive(archive: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.tar")
    assert archive.read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_archive_is_read_back_without_unpacking(archive: Path) -> None:
    with LayoutArchive(archive) as opened:
        assert opened.manifest(lambda _: True) == ({"layers": []}, MANIFEST.digest)
        assert opened.read(DESCRIPTOR) == BLOB


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 1 << 40])
def test_header_of_any_size_has_one_block_that_readers_understand(size: int) -> None:
    header = _header("blobs/sha256/" + "a" * 64, size)
    assert len(header) == 512
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    reader = TarReader(ChunkReader(iter([header])), Limits(file_bytes=1 << 50), end_marker=False)
    assert next(iter(reader)).size == size


def damaged_blob(data: bytes) -> bytes:
    return data.replace(BLOB, b"Blob" * 1000)


def short(data: bytes) -> bytes:
    return data[:3000]


def tar_of(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def index_of(*entries: Any, schema_version: Any = 2, layout_version: Any = "1.0.0") -> Callable[[bytes], bytes]:
    marker = to_json({"imageLayoutVersion": layout_version})
    index = to_json({"schemaVersion": schema_version, "manifests": list(entries)})
    blobs = {f"blobs/sha256/{digest_of(data)[7:]}": data for data in (MANIFEST.data, BLOB)}
    return lambda _: tar_of({"oci-layout": marker, "index.json": index, **blobs})


ENTRY = MANIFEST.descriptor()
HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "damaged blob": damaged_blob,
    "truncated": short,
    "empty": lambda _: b"",
    "not a tar": lambda _: b"x" * 10000,
    "no index": lambda _: tar_of({"oci-layout": b"{}"}),
    "index that is not JSON": lambda _: tar_of({"oci-layout": b"{}", "index.json": b"{"}),
    "layout of another version": index_of(ENTRY, layout_version="9.0.0"),
    "index of another version": index_of(ENTRY, schema_version=9),
    "index that is a list": lambda _: tar_of({"oci-layout": b"{}", "index.json": b"[]"}),
    "every name twice": lambda data: data[:-1024] + data,
    "symbolic links": lambda _: tar_of({"oci-layout": b"", "index.json": b""}, tarfile.SYMTYPE),
    "hard links": lambda _: tar_of({"oci-layout": b"", "index.json": b""}, tarfile.LNKTYPE),
    "too many members": lambda _: tar_of({f"m{i}": b"" for i in range(1100)}),
    "index of 5 MiB": lambda _: tar_of({"oci-layout": b"{}", "index.json": b" " * (5 << 20)}),
    "no manifest": index_of(),
    "two manifests": index_of(ENTRY, ENTRY),
    "manifest that is not there": index_of({**ENTRY, "digest": "sha256:" + "0" * 64}),
    "manifest of another size": index_of({**ENTRY, "size": ENTRY["size"] - 1}),
    "digest that leads out": index_of({**ENTRY, "digest": "sha256:../../index.json"}),
}


def read_all(path: Path) -> None:
    with LayoutArchive(path) as opened:
        opened.manifest(lambda _: True)
        opened.read(DESCRIPTOR)


def test_archive_of_a_known_version_is_read(archive: Path) -> None:
    archive.write_bytes(index_of(ENTRY)(b""))

    read_all(archive)


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archive_is_refused(archive: Path, damage: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(BangerError) as caught:
        read_all(archive)
    assert caught.value.kind is ErrorKind.INVALID
    assert str(archive) in caught.value.message


def test_missing_file_directory_and_pipe_are_errors_of_their_own(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "none", ErrorKind.NOT_FOUND), (tmp_path, ErrorKind.INVALID)):
        with pytest.raises(BangerError) as caught:
            LayoutArchive(path)
        assert caught.value.kind is kind
    with pytest.raises(BangerError) as caught:
        LayoutArchive(tmp_path / "pipe")
    assert caught.value.kind is ErrorKind.INVALID
