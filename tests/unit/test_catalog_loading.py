"""The catalog: what short names mean, here and elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from banger.catalog import Catalog, CatalogEntry, ImageLocation, resolve_image
from banger.catalog.host import HostFacts
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_artifact_name
from banger.oci.reference import Reference

DEBIAN = HostFacts("debian", "x86_64", can_bootstrap=True)
FEDORA = HostFacts("fedora", "aarch64", can_bootstrap=False)


@dataclass(frozen=True)
class Place:
    catalog_dir: Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def source_of(entry: CatalogEntry | None) -> str:
    assert entry is not None
    return entry.source


def test_debian_is_bootstrapped_on_debian_and_pulled_elsewhere(place: Place) -> None:
    hub = "docker.io/library/debian:stable-slim"
    bare_debian = HostFacts("debian", "x86_64", can_bootstrap=False)

    assert source_of(Catalog.load(place, DEBIAN).image("debian")) == "mmdebstrap:host"
    assert source_of(Catalog.load(place, bare_debian).image("debian")) == hub
    assert source_of(Catalog.load(place, FEDORA).image("debian")) == hub


def test_default_kernel_follows_the_architecture(place: Place) -> None:
    assert source_of(Catalog.load(place, DEBIAN).kernel("debian-cloud")) == "apt:linux-image-cloud-amd64"
    assert source_of(Catalog.load(place, FEDORA).kernel("debian-cloud")) == "apt:linux-image-cloud-arm64"


@pytest.mark.parametrize("host", [DEBIAN, FEDORA], ids=["debian", "fedora"])
def test_every_shipped_image_is_complete_and_can_be_parsed(place: Place, host: HostFacts) -> None:
    entries = Catalog.load(place, host).images()

    assert len(entries) > 10
    for entry in entries:
        check_artifact_name(entry.name, "image")
        assert entry.summary
        assert entry.origin == "banger"
        assert entry.source.startswith("mmdebstrap:") or str(Reference.parse(entry.source)) == entry.source


def test_entry_for_another_platform_is_left_out(place: Place) -> None:
    assert Catalog.load(place, DEBIAN).image("archlinux") is not None
    assert Catalog.load(place, FEDORA).image("archlinux") is None


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/x86_64", "amd64"])
def test_entry_for_a_platform_by_any_of_its_names_is_there(place: Place, platform: str) -> None:
    (place.catalog_dir / "x.toml").write_text(f'[images.mine]\nsource = "mirror.lan/a:1"\nplatform = "{platform}"\n')

    assert Catalog.load(place, DEBIAN).image("mine") is not None
    assert Catalog.load(place, FEDORA).image("mine") is None


def test_user_file_overrides_and_adds_and_is_the_origin(place: Place) -> None:
    (place.catalog_dir / "10-mine.toml").write_text('[images.alpine]\nsource = "mirror.lan/alpine:3"\n')
    later = place.catalog_dir / "20-more.toml"
    later.write_text('[images.alpine]\nsource = "mirror.lan/alpine:4"\n[kernels.lab]\nsource = "apt:linux-image-lab"\n')
    (place.catalog_dir / "notes.txt").write_text("not a catalog")
    catalog = Catalog.load(place, DEBIAN)

    assert catalog.image("alpine") == CatalogEntry("alpine", "mirror.lan/alpine:4", "", str(later))
    assert [entry.name for entry in catalog.kernels()] == ["debian-cloud", "lab"]
    assert set(catalog.entries()) == {"images", "kernels"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[images.x", ""),
        ("\xff", ""),
        ("[image.x]\nsource = 'a'", "image"),
        ("images = 1", "images"),
        ("[images]\nx = 1", "images.x"),
        ("[images.x]\nsummary = 'a'", "images.x.source"),
        ("[images.x]\nsource = 1", "images.x.source"),
        ("[images.x]\nsource = ''", "images.x.source"),
        ("[images.x]\nsource = 'a'\nsize = '1'", "images.x.size"),
        ('[images.x]\nsource = "a"\nsummary = "a\\u001b[2J"', "images.x.summary"),
        ("[images.'Bad Name']\nsource = 'a'", "images.Bad Name"),
    ],
)
def test_bad_user_file_is_a_usage_error_naming_file_and_key(place: Place, text: str, key: str) -> None:
    file = place.catalog_dir / "mine.toml"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(BangerError) as failure:
        Catalog.load(place, DEBIAN)
    assert failure.value.kind is ErrorKind.USAGE
    assert str(file) in failure.value.message
    assert failure.value.subject == (key or str(file))


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("debian", ImageLocation("debian", "mmdebstrap:host")),
        ("python", ImageLocation("python", "docker.io/library/python:slim")),
        ("python:3.12-slim", ImageLocation("python:3.12-slim", "python:3.12-slim")),
        ("docker.io/library/nginx", ImageLocation("nginx", "docker.io/library/nginx")),
        ("ghcr.io/org/app:1", ImageLocation("ghcr.io/org/app:1", "ghcr.io/org/app:1")),
        (
            "mmdebstrap:trixie?include=curl,git",
            ImageLocation("mmdebstrap:trixie", "mmdebstrap:trixie?include=curl,git"),
        ),
    ],
)
def test_name_or_reference_is_resolved(place: Place, text: str, wish: ImageLocation) -> None:
    assert resolve_image(text, Catalog.load(place, DEBIAN)) == wish


def test_misspelt_name_is_not_found_with_the_closest_one(place: Place) -> None:
    with pytest.raises(BangerError, match='image "debain" not found') as failure:
        resolve_image("debain", Catalog.load(place, DEBIAN))

    assert failure.value.kind is ErrorKind.NOT_FOUND
    assert failure.value.hint == 'did you mean "debian"?  banger image pull debian'
    assert "docker.io/library/debain" in failure.value.cause


def test_unknown_word_is_never_looked_up_on_the_hub_by_itself(place: Place) -> None:
    with pytest.raises(BangerError) as failure:
        resolve_image("nginx", Catalog.load(place, DEBIAN))

    assert failure.value.hint == "banger image pull docker.io/library/nginx"


@pytest.mark.parametrize("text", ["", "Bad/Name", "a/../b"])
def test_text_that_means_nothing_is_a_usage_error(place: Place, text: str) -> None:
    with pytest.raises(BangerError) as failure:
        resolve_image(text, Catalog.load(place, DEBIAN))
    assert failure.value.kind is ErrorKind.USAGE
