"""The document that describes a bundle."""

from __future__ import annotations

import json
from typing import Any

import pytest

from banger.bundle.manifest import (
    ARTIFACT_TYPE,
    MANIFEST_TYPE,
    ROOTFS_TYPE,
    SEED_TYPE,
    BundleManifest,
    BundleParts,
    DefaultSizes,
    Disk,
    KernelReference,
    is_bundle,
    parse_bundle_artifact,
)
from banger.core.models import ImageConfig
from banger.oci.artifact import LocalBlob, manifest_bytes
from banger.oci.documents import DocumentError, parse_object

DISK = Disk(1 << 31, "a" * 64, "11111111-2222-3333-4444-555555555555")
FULL = BundleManifest(
    name="debian:12",
    source="mmdebstrap:bookworm",
    image_digest="sha256:" + "b" * 64,
    platform="linux/arm64/v8",
    created="2026-11-23T16:05:02.123Z",
    rootfs=DISK,
    seed=Disk(64 << 20, "c" * 64, "66666666-2222-3333-4444-555555555555"),
    config=ImageConfig(("A=ä",), ("/init",), ("-x",), "me", "/srv", {"b": "2", "a": "1"}),
    kernel=KernelReference("debian-cloud", "sha256:" + "d" * 64),
    defaults=DefaultSizes(2, 1024, 20480),
)
LEAST = BundleManifest("", "", "", "linux/amd64", "", DISK)


@pytest.mark.parametrize("manifest", [FULL, LEAST], ids=["full", "least"])
def test_manifest_is_read_back_as_it_was_written(manifest: BundleManifest) -> None:
    assert BundleManifest.parse(manifest.to_bytes()) == manifest


def test_equal_manifests_give_equal_bytes_whatever_the_order_of_labels() -> None:
    other = ImageConfig(("A=ä",), ("/init",), ("-x",), "me", "/srv", {"a": "1", "b": "2"})
    changed = BundleManifest(**{name: getattr(FULL, name) for name in FULL.__slots__} | {"config": other})
    assert changed.to_bytes() == FULL.to_bytes()


def test_unknown_keys_of_a_later_version_are_ignored() -> None:
    data = json.loads(FULL.to_bytes()) | {"later": {"x": 1}}
    assert BundleManifest.parse(json.dumps(data).encode()) == FULL


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("platform", "windows/amd64"),
        ("platform", "linux/amd64/../x"),
        ("platform", None),
        ("name", "../../etc"),
        ("name", "A b"),
        ("name", 5),
        ("source", "a\nb"),
        ("source", "x" * 5000),
        ("image_digest", "x" * 300),
        ("image_digest", ["sha256:" + "b" * 64]),
        ("rootfs", None),
        ("rootfs", []),
        ("rootfs.size_bytes", -1),
        ("rootfs.size_bytes", 1 << 40),
        ("rootfs.size_bytes", True),
        ("rootfs.size_bytes", 1.5),
        ("rootfs.sha256", "a" * 63),
        ("rootfs.uuid", "../../../../etc/passwd"),
        ("seed.sha256", ""),
        ("config", "x"),
        ("config.Env", "A=b"),
        ("config.Cmd", [1]),
        ("config.User", "a\x1bb"),
        ("kernel.name", "/etc/passwd"),
        ("kernel.digest", "md5:0"),
        ("kernel.source", "/boot/vmlinuz"),
        ("kernel.source", "apt:-oDir::Etc=/x"),
        ("kernel.source", "oci:a b"),
        ("kernel.source", "http://169.254.169.254/k#sha256=" + "0" * 64),
        ("kernel.source", "https://example.org/k"),
        ("defaults.cpus", -1),
        ("defaults.memory_mib", "1G"),
    ],
)
def test_manifest_with_an_unsound_field_is_refused(path: str, value: Any) -> None:
    data = json.loads(FULL.to_bytes())
    *parents, key = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[key] = value
    with pytest.raises(DocumentError):
        BundleManifest.parse(json.dumps(data).encode())


def artifact(*media_types: str, artifact_type: str = ARTIFACT_TYPE, **changes: Any) -> dict[str, Any]:
    config = LocalBlob.of_bytes(MANIFEST_TYPE, FULL.to_bytes())
    layers = [LocalBlob.of_bytes(kind, f"{i}".encode(), "../../evil") for i, kind in enumerate(media_types)]
    return parse_object(manifest_bytes(artifact_type, config, layers, {})) | changes


def test_layers_are_found_by_media_type_whatever_their_order_and_titles() -> None:
    parsed = parse_bundle_artifact(artifact("text/plain", SEED_TYPE, ROOTFS_TYPE), "sha256:" + "0" * 64)
    parts = BundleParts.of(parsed, FULL)
    assert parts.rootfs.media_type == ROOTFS_TYPE
    assert parts.seed is not None
    assert parts.seed.media_type == SEED_TYPE


@pytest.mark.parametrize(
    "media_types", [(), (SEED_TYPE,), (ROOTFS_TYPE, ROOTFS_TYPE, SEED_TYPE), (ROOTFS_TYPE, SEED_TYPE, SEED_TYPE)]
)
def test_missing_and_repeated_layers_are_refused(media_types: tuple[str, ...]) -> None:
    parsed = parse_bundle_artifact(artifact(*media_types), "sha256:" + "0" * 64)
    with pytest.raises(DocumentError):
        BundleParts.of(parsed, FULL)


def test_seed_must_be_in_both_the_manifest_and_the_layers() -> None:
    with_seed = parse_bundle_artifact(artifact(ROOTFS_TYPE, SEED_TYPE), "sha256:" + "0" * 64)
    with pytest.raises(DocumentError, match="work seed"):
        BundleParts.of(with_seed, LEAST)


def test_bundle_is_told_from_other_things() -> None:
    assert is_bundle(artifact(ROOTFS_TYPE))
    assert is_bundle(artifact(ROOTFS_TYPE, artifactType=None))  # copied by a tool that does not know the field
    assert not is_bundle(artifact(ROOTFS_TYPE, artifact_type="application/vnd.banger.kernel.v1"))
    assert not is_bundle({"config": {"mediaType": "application/vnd.oci.image.config.v1+json"}})
    assert not is_bundle({"config": None})


@pytest.mark.parametrize(
    "changes",
    [
        {"artifactType": "application/vnd.example"},
        {"config": None},
        {"config": {"mediaType": MANIFEST_TYPE, "digest": "sha256:" + "0" * 64, "size": 1 << 30}},
        {"config": {"mediaType": "text/plain", "digest": "sha256:" + "0" * 64, "size": 1}},
        {"layers": None},
        {"layers": [{"mediaType": ROOTFS_TYPE, "digest": "sha256:../../x", "size": 1}]},
        {"layers": [{"mediaType": ROOTFS_TYPE, "digest": "sha256:" + "0" * 64, "size": -1}]},
        {"layers": [{"mediaType": ROOTFS_TYPE, "digest": "sha256:" + "0" * 64, "size": 1, "urls": ["https://x"]}]},
        {"layers": [{"mediaType": ROOTFS_TYPE, "digest": "sha256:" + "0" * 64, "size": 1}] * 100},
    ],
)
def test_unsound_artifact_manifest_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        parse_bundle_artifact(artifact(ROOTFS_TYPE, **changes), "sha256:" + "0" * 64)
