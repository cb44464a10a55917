"""What a registry may send in place of a manifest, and what becomes of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci.documents import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.faulty_registry import (
    Fault,
    FaultyRegistry,
    disconnecting,
    faulty_registry,
    refusing_without_end,
    registry_error,
    replaced,
    silent,
    status,
    truncated,
)
from tests.support.oci_client import LONG_TIMEOUTS, BackgroundPull, Puller
from tests.support.registry import BuiltImage, Layer, build_image, build_index, digest_of, to_json
from tests.support.waiting import eventually

NAME = "test/app:1"
MANIFEST = "/manifests/"
OTHER = "linux/s390x"


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with faulty_registry() as server:
        yield server


@pytest.fixture
def image(registry: FaultyRegistry) -> BuiltImage:
    image = build_image(
        [Layer({"etc/motd": b"hi"})], config={"Env": ["A=1"], "Cmd": ["/bin/sh"]}, platform="linux/amd64"
    )
    registry.serve(NAME, image)
    return image


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path / "blobs", platform="linux/amd64")


def serve_changed(registry: FaultyRegistry, image: BuiltImage, change: Callable[[dict[str, Any]], object]) -> None:
    """Serve the image's manifest with one thing changed."""
    manifest = json.loads(image.manifest)
    change(manifest)
    registry.serve_manifest(NAME, to_json(manifest), image.media_type)


@pytest.mark.parametrize("docker", [False, True], ids=["OCI", "Docker schema 2"])
def test_manifest_of_either_family_resolves_to_digest_and_config(
    registry: FaultyRegistry, puller: Puller, docker: bool
) -> None:
    image = build_image([Layer({"a": b"1"})], config={"User": "app"}, platform="linux/amd64", docker=docker)
    registry.serve(NAME, image)
    resolved = puller.resolve(registry.reference(NAME))

    assert resolved.digest == image.digest
    assert resolved.config.user == "app"
    assert str(resolved.platform) == "linux/amd64"


def test_manifest_dropped_once_is_asked_for_again(registry: FaultyRegistry, image: BuiltImage, puller: Puller) -> None:
    registry.on(MANIFEST, disconnecting(), truncated(after=20), status(502))
    puller.retry = puller.retry.__class__(attempts=4, first_s=0.01)

    assert puller.resolve(registry.reference(NAME)).digest == image.digest


def test_manifest_that_is_not_there_is_not_found(registry: FaultyRegistry, puller: Puller) -> None:
    with pytest.raises(BangerError, match=r'image "127\.0\.0\.1:\d+/test/app:1" not found') as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.NOT_FOUND
    assert "manifest unknown" in failure.value.cause


def test_error_with_status_200_is_told_in_the_registrys_words(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    registry.always(MANIFEST, replaced(registry_error("TOOMANYREQUESTS", "slow down"), "application/json"))

    with pytest.raises(BangerError, match="slow down") as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.UNAVAILABLE


def test_huge_manifest_is_invalid_and_not_read_to_its_end(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    registry.always(MANIFEST, replaced(b" " * (64 << 20), OCI_MANIFEST))

    with pytest.raises(BangerError, match="longer than 4194304 bytes") as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID


def test_manifest_by_digest_with_other_bytes_is_invalid(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    registry.always(MANIFEST, replaced(image.manifest + b"\n", image.media_type))

    with pytest.raises(BangerError, match="sent sha256:") as failure:
        puller.resolve(registry.reference(f"test/app@{image.digest}"))

    assert failure.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda m: m.update(manifests=[]), "an index and a manifest at once", id="both kinds"),
        pytest.param(lambda m: m.update(mediaType=DOCKER_MANIFEST), "calls itself", id="type differs from the header"),
        pytest.param(lambda m: m.update(mediaType="text/html"), "not an image", id="unknown type"),
        pytest.param(lambda m: (m.pop("layers"), m.pop("config")), "neither an index nor", id="neither kind"),
        pytest.param(lambda m: m.update(fsLayers=[]), "schema 1", id="schema 1"),
        pytest.param(lambda m: m["layers"][0].update(mediaType="application/x-rar"), "unknown type", id="layer type"),
        pytest.param(
            lambda m: m["layers"][0].update(mediaType="application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            "unknown type",
            id="encrypted",
        ),
        pytest.param(lambda m: m.update(schemaVersion=9), "schemaVersion is '9'", id="schema 9"),
        pytest.param(lambda m: m.update(schemaVersion=1), "schemaVersion is '1'", id="schema 1 that is none"),
        pytest.param(lambda m: m.update(schemaVersion="2"), "schemaVersion", id="version is text"),
        pytest.param(lambda m: m.update(schemaVersion=2.0), "schemaVersion", id="version is no whole number"),
        pytest.param(lambda m: m.update(schemaVersion=None), "schemaVersion", id="version is null"),
        pytest.param(lambda m: m.update(mediaType=["x"]), "not an image", id="type is a list"),
        pytest.param(
            lambda m: m["layers"][0].update(digest="sha256:../../etc"), "no sha256 digest", id="path as digest"
        ),
        pytest.param(lambda m: m["layers"][0].update(digest="sha512:" + "0" * 128), "no sha256 digest", id="sha512"),
        pytest.param(lambda m: m["layers"][0].update(size=-1), "no sensible size", id="negative size"),
        pytest.param(lambda m: m["layers"][0].update(size=True), "no sensible size", id="size is a bool"),
        pytest.param(lambda m: m["layers"][0].update(size=1 << 60), "no sensible size", id="absurd size"),
        pytest.param(lambda m: m.update(layers=m["layers"] * 129), "more than 128", id="too many layers"),
        pytest.param(lambda m: m.update(layers={}), "no list", id="layers not a list"),
        pytest.param(lambda m: m.update(layers=m["layers"] * 2), "does not list the layers", id="config disagrees"),
        pytest.param(
            lambda m: m["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"), "helm", id="a chart"
        ),
        pytest.param(lambda m: m["config"].update(size=5 << 20), "longer than", id="huge config"),
        pytest.param(lambda m: m["config"].update(size=m["config"]["size"] + 1), "match its digest", id="config size"),
    ],
)
def test_unsound_manifest_is_invalid_with_a_reason(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    serve_changed(registry, image, change)

    with pytest.raises(BangerError, match=words) as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"<html>captive portal</html>", "not JSON", id="html"),
        pytest.param(b"[" * 200_000, "not JSON", id="deeply nested"),
        pytest.param(b"[]", "not a JSON object", id="a list"),
        pytest.param(b'{"layers": [], "config": {}, "layers": []}', "a key twice", id="a key twice"),
    ],
)
def test_body_that_is_no_document_is_invalid(registry: FaultyRegistry, puller: Puller, body: bytes, words: str) -> None:
    registry.serve_manifest(NAME, body, OCI_MANIFEST)

    with pytest.raises(BangerError, match=words) as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID


def test_config_blob_with_other_bytes_is_invalid(registry: FaultyRegistry, image: BuiltImage, puller: Puller) -> None:
    config_digest = json.loads(image.manifest)["config"]["digest"]
    registry.serve_blob("test/app", b"{}", config_digest)

    with pytest.raises(BangerError, match="does not match its digest") as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    "config_type", ["application/octet-stream", "application/json", "text/html"], ids=["octets", "json", "html"]
)
@pytest.mark.parametrize(
    "layer_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar+zstd",
        "application/vnd.oci.image.layer.v1.tar",
    ],
)
def test_manifest_with_harmlessly_wrong_labels_resolves(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller, layer_type: str, config_type: str
) -> None:
    def relabel(manifest: dict[str, Any]) -> None:
        manifest["layers"][0].update(mediaType=layer_type, urls=["http://192.0.2.1/never-asked"])
        manifest["config"].update(mediaType=config_type)

    serve_changed(registry, image, relabel)

    assert puller.pull(registry.reference(NAME)) == [image.blobs[image.layer_digests[0]]]


def test_foreign_layer_that_the_registry_lacks_is_named_as_one(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    serve_changed(registry, image, lambda manifest: manifest["layers"][0].update(urls=["http://192.0.2.1/never-asked"]))
    registry.always(image.layer_digests[0], status(404))

    with pytest.raises(BangerError, match="foreign layer") as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.NOT_FOUND
    assert image.layer_digests[0] in failure.value.message


@pytest.mark.parametrize(
    ("diff_ids", "words"),
    [
        (["sha256:" + "0" * 63], "diff_id of layer 1 of 1 is not a digest"),
        (["sha256:" + "G" * 64], "diff_id of layer 1 of 1 is not a digest"),
        (["../../etc"], 'not a digest: "../../etc"'),
        ([None], "not a digest"),
        ([["sha256"]], "not a digest"),
        ([], "0 diff_ids for 1 layers"),
        (None, "no diff_ids for 1 layers"),
        (["sha256:" + "0" * 64] * 2, "2 diff_ids for 1 layers"),
    ],
)
def test_config_with_unsound_diff_ids_is_invalid_before_any_layer_is_fetched(
    registry: FaultyRegistry, puller: Puller, diff_ids: Any, words: str
) -> None:
    image = build_image([Layer({"etc/motd": b"hi"})], platform="linux/amd64", diff_ids=diff_ids)
    registry.serve(NAME, image)

    with pytest.raises(BangerError, match=words) as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID
    assert registry.asked(image.layer_digests[0]) == []


@pytest.mark.parametrize("diff_ids", [[], None])
def test_image_without_layers_resolves(registry: FaultyRegistry, puller: Puller, diff_ids: Any) -> None:
    registry.serve(NAME, build_image([], platform="linux/amd64", diff_ids=diff_ids))

    assert puller.pull(registry.reference(NAME)) == []


def serve_index(registry: FaultyRegistry, images: list[BuiltImage]) -> bytes:
    index = build_index(images)
    registry.serve_manifest(NAME, index, OCI_INDEX)
    return index


def test_index_gives_the_wanted_platform(registry: FaultyRegistry, image: BuiltImage, puller: Puller) -> None:
    other = build_image([Layer({"a": b"1"})], platform=OTHER)
    registry.serve("test/app:other", other)
    serve_index(registry, [other, image])

    assert puller.resolve(registry.reference(NAME)).digest == image.digest
    puller.platform = OTHER
    assert puller.resolve(registry.reference(NAME)).digest == other.digest


def test_index_without_the_wanted_platform_lists_what_it_has(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    serve_index(registry, [image, build_image([], platform="linux/arm/v7")])
    puller.platform = "linux/riscv64"

    with pytest.raises(BangerError, match="has no linux/riscv64 variant") as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID
    assert failure.value.cause == "it has linux/amd64, linux/arm/v7"


def test_single_image_of_another_architecture_is_invalid(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    puller.platform = "linux/arm64"

    with pytest.raises(BangerError, match="has no linux/arm64 variant: it is for linux/amd64") as failure:
        puller.resolve(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID


def nested_index(registry: FaultyRegistry, image: BuiltImage, depth: int) -> None:
    """Serve ``depth`` indexes, each in the other, around an image."""
    entry = image.descriptor()
    for level in range(depth):
        body = to_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
        target = "1" if level == depth - 1 else digest_of(body)
        registry.serve_manifest(f"test/app:{target}", body, OCI_INDEX)
        entry = {"mediaType": OCI_INDEX, "digest": digest_of(body), "size": len(body), "platform": entry["platform"]}


def test_index_nested_three_deep_resolves(registry: FaultyRegistry, image: BuiltImage, puller: Puller) -> None:
    nested_index(registry, image, depth=3)

    assert puller.resolve(registry.reference(NAME)).digest == image.digest


def test_index_nested_deeper_is_invalid(registry: FaultyRegistry, image: BuiltImage, puller: Puller) -> None:
    nested_index(registry, image, depth=4)

    with pytest.raises(BangerError, match="nested too deeply"):
        puller.resolve(registry.reference(NAME))


def test_index_entry_whose_manifest_is_of_another_size_is_invalid(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    entry = {**image.descriptor(), "size": len(image.manifest) + 1}
    registry.serve_manifest(NAME, to_json({"schemaVersion": 2, "manifests": [entry]}), OCI_INDEX)

    with pytest.raises(BangerError, match="another size or type"):
        puller.resolve(registry.reference(NAME))


@pytest.mark.parametrize("architecture", ["x86_64", "x86-64", "AMD64"])
def test_index_and_config_with_another_name_of_the_architecture_are_understood(
    registry: FaultyRegistry, puller: Puller, architecture: str
) -> None:
    image = build_image([Layer({"a": b"1"})], platform=f"linux/{architecture}")
    registry.serve("test/app:x86", image)
    serve_index(registry, [build_image([], platform="linux/aarch64"), image])

    for wanted in ("linux/amd64", "linux/x86_64"):
        puller.platform = wanted
        resolved = puller.resolve(registry.reference(NAME))
        assert (resolved.digest, str(resolved.platform)) == (image.digest, "linux/amd64")


def test_index_whose_entry_for_this_platform_does_not_say_so_is_followed(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    unnamed = {key: value for key, value in image.descriptor().items() if key != "platform"}
    entries = [build_image([], platform=OTHER).descriptor(), unnamed]
    registry.serve_manifest(NAME, to_json({"schemaVersion": 2, "manifests": entries}), OCI_INDEX)

    assert puller.resolve(registry.reference(NAME)).digest == image.digest


def test_manifest_that_a_proxy_has_compressed_unasked_is_read(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    headers = {"Content-Type": image.media_type, "Content-Encoding": "gzip"}
    registry.on(MANIFEST, status(200, headers, gzip.compress(image.manifest)))

    assert puller.resolve(registry.reference(NAME)).digest == image.digest


def test_manifest_that_unpacks_to_a_bomb_is_invalid(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    registry.on(MANIFEST, status(200, {"Content-Type": image.media_type, "Content-Encoding": "gzip"}, bomb))

    with pytest.raises(BangerError, match="longer than 4194304 bytes"):
        puller.resolve(registry.reference(NAME))


def test_index_entry_that_names_the_other_family_is_followed(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    entry = {**image.descriptor(), "mediaType": DOCKER_MANIFEST}
    registry.serve_manifest(NAME, to_json({"schemaVersion": 2, "manifests": [entry]}), OCI_INDEX)

    assert puller.resolve(registry.reference(NAME)).digest == image.digest


def test_index_entry_that_calls_a_manifest_an_index_is_invalid(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    entry = {**image.descriptor(), "mediaType": OCI_INDEX}
    registry.serve_manifest(NAME, to_json({"schemaVersion": 2, "manifests": [entry]}), OCI_INDEX)

    with pytest.raises(BangerError, match="another size or type"):
        puller.resolve(registry.reference(NAME))


def test_index_of_one_image_without_a_platform_is_followed(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    entry = {key: value for key, value in image.descriptor().items() if key != "platform"}
    registry.serve_manifest(NAME, to_json({"schemaVersion": 2, "manifests": [entry]}), OCI_INDEX)

    assert puller.resolve(registry.reference(NAME)).digest == image.digest


@pytest.mark.parametrize("fault", [silent(), refusing_without_end(403), refusing_without_end(500)])
def test_resolve_cancelled_while_the_registry_is_silent_ends_at_once(
    registry: FaultyRegistry, tmp_path: Path, fault: Fault
) -> None:
    registry.always(MANIFEST, fault)
    pull = BackgroundPull(Puller(tmp_path, timeouts=LONG_TIMEOUTS), registry.reference(NAME))
    eventually(lambda: registry.asked(MANIFEST))

    assert pull.cancel() < 1.0
    assert pull.failure is not None
    assert pull.failure.kind is ErrorKind.CANCELLED
