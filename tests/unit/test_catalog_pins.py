"""Catalog entries that are pinned by digest: what is here under their name is that, or nobody gets it unasked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.actors.messages import PullImage, PullKernel
from banger.catalog import Catalog
from banger.config import Config
from banger.core import clock
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel
from banger.core.pins import pin_of, tells_the_same
from banger.layout import Layout
from banger.resolver import StoreResolver
from banger.store import Store

PIN, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REFERENCE, URL = "registry.example.org/team/tools:1", "https://kernels.example.org/vmlinuz"
ENTRIES = f"""
[images.tools]
source = "{REFERENCE}@{PIN}"
[images.loose]
source = "{REFERENCE}"
[kernels.lab]
source = "{URL}#sha256={PIN.removeprefix("sha256:").upper()}"
"""
IMAGE = Image("1" * 12, "tools", REFERENCE, OTHER, "linux/amd64", 1, 1, clock.now())
KERNEL = Kernel("2" * 12, "lab", "6.1", URL, OTHER, "linux/amd64", "bzimage", 1, clock.now())


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[StoreResolver]:
    layout = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    layout.make_directories()
    layout.catalog_dir.mkdir(parents=True)
    (layout.catalog_dir / "team.toml").write_text(ENTRIES)
    store = Store(layout.database)
    yield StoreResolver(store, Catalog.load(layout), Config.load(layout.config_file, {}))
    store.close()


@pytest.mark.parametrize(
    ("source", "pin"),
    [
        (f"alpine@{PIN}", PIN),
        (f"oci:host:5000/a/b:1@{PIN}", PIN),
        (f"{URL}#sha256={'A' * 64}", PIN),
        ("alpine:3", ""),
        ("apt:linux-image-cloud-amd64", ""),
        (f"alpine@{PIN}0", ""),
        ("alpine@sha256:aa", ""),
        (f"file:/x@{PIN}/y", ""),
    ],
)
def test_pin_is_what_the_source_ends_in(source: str, pin: str) -> None:
    assert pin_of(source) == pin


def test_content_that_is_pulled_again_is_filed_anew_only_for_a_pin_that_its_record_lacks() -> None:
    assert tells_the_same(REFERENCE, REFERENCE)
    assert tells_the_same("mirror.example.org/tools", REFERENCE)
    assert tells_the_same(f"{REFERENCE}@{PIN}", f"{REFERENCE}@{PIN}")
    assert not tells_the_same(REFERENCE, f"{REFERENCE}@{PIN}")


@pytest.mark.parametrize(
    "found",
    [replace(IMAGE, digest=PIN), replace(IMAGE, source=f"mirror.example.org/tools@{PIN}")],
    ids=["its own digest", "the pin of an index that it was found by"],
)
def test_image_that_is_what_the_catalog_pins_is_used(resolver: StoreResolver, found: Image) -> None:
    resolver._store.images.insert(found)
    assert resolver.image("tools", 0) == found


def test_image_that_is_not_what_the_catalog_pins_is_an_error_with_both_digests(resolver: StoreResolver) -> None:
    assert isinstance(resolver.image("tools", 0), PullImage)
    resolver._store.images.insert(IMAGE)
    with pytest.raises(BangerError, match='image "tools" is not the one that is pinned') as caught:
        resolver.image("tools", 0)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert PIN in caught.value.cause
    assert OTHER in caught.value.cause
    assert "banger image pull tools" in caught.value.hint
    assert resolver.image(IMAGE.id, 0) == IMAGE


@pytest.mark.parametrize("query", [f"tools@{PIN}", f"docker.io/library/tools@{PIN}"])
def test_image_that_was_given_the_name_of_another_digest_is_an_error(resolver: StoreResolver, query: str) -> None:
    resolver._store.images.insert(replace(IMAGE, name=f"tools@{PIN}"))
    with pytest.raises(BangerError, match="is not the one that is pinned") as caught:
        resolver.image(query, 0)
    assert caught.value.cause == f"here is {OTHER} from {REFERENCE}; its name pins {PIN}"
    resolver._store.images.update(replace(IMAGE, name=f"tools@{PIN}", digest=PIN))
    assert isinstance(resolver.image(query, 0), Image)


def test_entry_without_a_pin_is_whatever_has_its_name(resolver: StoreResolver) -> None:
    own = replace(IMAGE, name="loose", source="commit:web")
    resolver._store.images.insert(own)
    assert resolver.image("loose", 0) == own


def test_kernel_that_is_not_what_the_catalog_pins_is_an_error_with_both_digests(resolver: StoreResolver) -> None:
    assert isinstance(resolver.kernel("lab", 0), PullKernel)
    resolver._store.kernels.insert(KERNEL)
    with pytest.raises(BangerError, match='kernel "lab" is not the one') as caught:
        resolver.kernel("lab", 0)
    assert PIN in caught.value.cause
    assert OTHER in caught.value.cause
    resolver._store.kernels.update(replace(KERNEL, source=f"{URL}#sha256={'a' * 64}"))
    assert resolver.kernel("lab", 0).id == KERNEL.id
