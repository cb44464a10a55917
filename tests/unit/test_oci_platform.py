"""Platforms: which of an index's entries runs here."""

from __future__ import annotations

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci.platform import Platform


@pytest.mark.parametrize(
    ("machine", "text"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7"), ("i686", "linux/386")],
)
def test_host_platform_is_named_as_oci_does(machine: str, text: str) -> None:
    assert str(Platform.host(machine)) == text


@pytest.mark.parametrize(
    ("wanted", "offers", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm64", ["linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/arm64"], "linux/arm64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v6", ["linux/arm/v7"], None),
        ("linux/amd64", ["linux/amd64/v3"], None),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/amd64", ["windows/amd64", "unknown/unknown"], None),
        ("linux/amd64", [], None),
    ],
)
def test_best_offer_is_the_newest_that_runs(wanted: str, offers: list[str], chosen: str | None) -> None:
    best = Platform.parse(wanted).best([Platform(*offer.split("/")) for offer in offers])

    assert (None if best is None else offers[best]) == chosen


@pytest.mark.parametrize(
    "text", ["amd46", "win", "windows/amd64", "linux/amd64/v2/x", "linux/", "linux//v7", "linux/am d64", "/"]
)
def test_text_that_is_no_platform_is_a_usage_error(text: str) -> None:
    with pytest.raises(BangerError) as failure:
        Platform.parse(text)

    assert failure.value.kind is ErrorKind.USAGE


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("linux/x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("Linux/AMD64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/V3", "linux/amd64/v3"),
        ("linux/i386", "linux/386"),
        ("linux/i686", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/arm64/armv8", "linux/arm64"),
        ("linux/arm64/unknown", "linux/arm64"),
        ("linux/arm/armv7", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/armv7l", "linux/arm/v7"),
        ("linux/armv6l", "linux/arm/v6"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/ppc64el", "linux/ppc64le"),
        ("arm64", "linux/arm64"),
        ("x86_64", "linux/amd64"),
    ],
)
def test_synonym_of_a_platform_is_read_in_every_place_as_what_it_means(text: str, meant: str) -> None:
    parts = dict(
        zip(
            ("os", "architecture", "variant"), ["linux", *text.split("/")][-max(2, text.count("/") + 1) :], strict=False
        )
    )

    assert str(Platform.parse(text)) == meant
    assert str(Platform.of(parts)) == meant


def test_system_alone_is_the_platform_of_this_host() -> None:
    assert Platform.parse("linux") == Platform.parse("") == Platform.host()


def test_platform_without_a_system_is_one_of_linux() -> None:
    assert Platform.of({"architecture": "x86_64"}) == Platform("linux", "amd64")


def test_platform_of_hostile_json_is_empty() -> None:
    assert Platform.of({"os": ["linux"], "architecture": "amd64\n"}) == Platform("", "", "")
    assert Platform.of("linux/amd64") == Platform("", "", "")
