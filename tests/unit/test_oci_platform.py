"""Platforms: which of an index's entries runs here."""

from __future__ import annotations

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci.platform import Platform


@pytest.mark.parametrize(
    ("machine", "text"),
    [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64/v8"), ("armv7l", "linux/arm/v7"), ("i686", "linux/386")],
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


@pytest.mark.parametrize("text", ["amd64", "linux", "windows/amd64", "linux/amd64/v2/x", "linux/", "linux/AMD64"])
def test_text_that_is_no_platform_is_a_usage_error(text: str) -> None:
    with pytest.raises(BangerError) as failure:
        Platform.parse(text)

    assert failure.value.kind is ErrorKind.USAGE


def test_platform_of_hostile_json_is_empty() -> None:
    assert Platform.of({"os": ["linux"], "architecture": "amd64\n"}) == Platform("", "", "")
    assert Platform.of("linux/amd64") == Platform("", "", "")
