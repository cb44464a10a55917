"""The documents of a kernel artifact, what a push's failures say, and how a URL's sum is written."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Kernel
from banger.kernels.url_source import parse_source
from banger.oci import artifact_kernel as formats
from banger.oci.artifact import LocalBlob, manifest_bytes
from banger.oci.artifact_kernel import KernelManifest, KernelParts, parse_kernel_artifact
from banger.oci.artifact_zstd import ZstdBlob
from banger.oci.documents import DocumentError, parse_object

KERNEL = Kernel(
    id="k", name="linux", version="6.1.0-56-cloud-amd64", source="apt:linux", digest="sha256:" + "a" * 64,
    platform="linux/amd64", format="bzimage", size_bytes=123, created_at=datetime(2026, 11, 23, 12, tzinfo=UTC),
    cmdline="quiet",
)  # fmt: skip
SUM = "0123456789abcdef" * 4


def test_kernel_manifest_is_read_back_as_it_was_written() -> None:
    manifest = KernelManifest.of(KERNEL)
    assert KernelManifest.parse(manifest.to_bytes()) == manifest
    assert manifest.created == "2026-11-23T12:00:00.000Z"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "../../etc"),
        ("version", "6.1 \x1b"),
        ("version", 6),
        ("platform", "linux"),
        ("platform", "windows/amd64"),
        ("format", "pe"),
        ("cmdline", "quiet\ninit=/bin/sh"),
        ("cmdline", "x" * 2000),
        ("cmdline", "ä"),
        ("size_bytes", -1),
    ],
)
def test_kernel_manifest_with_an_unsound_field_is_refused(key: str, value: Any) -> None:
    data = json.loads(KernelManifest.of(KERNEL).to_bytes()) | {key: value}
    with pytest.raises(DocumentError, match=key):
        KernelManifest.parse(json.dumps(data).encode())


def parts_of(*layers: tuple[str, int]) -> KernelParts:
    config = LocalBlob.of_bytes(formats.MANIFEST_TYPE, b"{}")
    blobs = [LocalBlob(kind, "sha256:" + "0" * 64, size, title="vmlinuz") for kind, size in layers]
    document = parse_object(manifest_bytes(formats.ARTIFACT_TYPE, config, blobs, {}))
    return KernelParts.of(parse_kernel_artifact(document, "sha256:" + "0" * 64))


def test_kernel_layers_are_found_by_media_type_in_any_order() -> None:
    parts = parts_of(
        (formats.INITRD_TYPE, 1), (formats.MODULES_GZIP_TYPE, 2), ("text/plain", 3), (formats.IMAGE_TYPE, 4)
    )
    assert [blob.size for blob in parts.present()] == [4, 2, 1]


@pytest.mark.parametrize(
    "layers",
    [
        [(formats.INITRD_TYPE, 1)],
        [(formats.IMAGE_TYPE, 1), (formats.IMAGE_TYPE, 1)],
        [(formats.IMAGE_TYPE, 1), (formats.MODULES_GZIP_TYPE, 1), (formats.MODULES_ZSTD_TYPE, 1)],
        [(formats.IMAGE_TYPE, 1 << 31)],
        [(formats.IMAGE_TYPE, 1), (formats.MODULES_ZSTD_TYPE, 1 << 34)],
    ],
    ids=["no kernel", "two kernels", "modules twice", "huge kernel", "huge modules"],
)
def test_kernel_artifact_with_unsound_layers_is_refused(layers: list[tuple[str, int]]) -> None:
    with pytest.raises(DocumentError):
        parts_of(*layers)


def test_manifest_of_a_blob_has_no_empty_annotations() -> None:
    blob = dataclasses.replace(LocalBlob.of_bytes("text/plain", b"x"), title="")
    document = json.loads(manifest_bytes("t", blob, [blob], {"a": "", "b": "c"}))
    assert document["annotations"] == {"b": "c"}
    assert "annotations" not in document["config"]


def compressed(data: bytes, piece: int) -> bytes:
    sink = io.BytesIO()
    blob = ZstdBlob(sink, CancelToken())
    for at in range(0, len(data), piece):
        blob.write(data[at : at + piece])
    digest, size = blob.finish()
    assert (digest, size) == (LocalBlob.of_bytes("", sink.getvalue()).digest, len(sink.getvalue()))
    return sink.getvalue()


def test_compressed_blob_is_the_same_on_any_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (os.urandom(1000) + bytes(2000)) * 4000
    results = set()
    for count, piece in ((1, 1 << 20), (2, 1 << 20), (64, 4096), (None, len(data))):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        results.add(compressed(data, piece))
    (result,) = results
    assert zstandard.ZstdDecompressor().decompressobj().decompress(result) == data


def test_url_is_split_from_its_sum() -> None:
    assert parse_source(f"https://h/k?x=1#sha256={SUM.upper()}") == ("https://h/k?x=1", f"sha256:{SUM}")


def test_url_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(BangerError, match="is not an address") as caught:
        parse_source(f"https://[::1/k#sha256={SUM}")
    assert caught.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize(
    "fragment", ["", "#", "#sha256=", f"#{SUM}", f"#sha256={SUM[1:]}", f"#md5={SUM}", f"#sha256={SUM}x"]
)
def test_url_without_a_proper_sum_says_how_to_write_it(fragment: str) -> None:
    with pytest.raises(BangerError) as caught:
        parse_source(f"https://h/k{fragment}")
    assert caught.value.kind is ErrorKind.USAGE
    assert "https://h/k#sha256=" in caught.value.hint
