"""The main job on hosts whose KVM lies, breaks, is not ours or not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.daemon import BangerHome
from tests.support.images import TestImage
from tests.support.lying_kvm import LyingKvm, can_make_devices, with_kvm

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_make_devices(), reason="no mount namespace with devices can be made here"),
]


@pytest.fixture
def kvm(tmp_path: Path) -> LyingKvm:
    return LyingKvm.make(tmp_path / "kvm")


@pytest.fixture
def host(fresh_home: BangerHome, kvm: LyingKvm, pushed: Callable[[TestImage], str]) -> Iterator[BangerHome]:
    """An installation on a host whose KVM lies, with an image."""
    there = kvm.on(fresh_home)
    there.run("image", "pull", pushed(images.busybox()), "--name", "box").ok()
    return there


@pytest.mark.boot
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_host_whose_kernels_hang_or_crawl_on_kvm_runs_machines_emulated_and_says_why(
    host: BangerHome, kvm: LyingKvm
) -> None:
    assert "a test guest ran on it" in host.run("doctor").text

    first = host.run("run", "box", "--", "echo", "up").ok()
    assert first.text == "up\n"
    (line,) = [line for line in first.errors.splitlines() if "KVM" in line]
    assert "this kernel does not come up on KVM here" in line
    assert "silent" in line

    host.run("run", "box", "--", "true").ok()
    assert kvm.tried == ["hang"], "what was found is remembered"

    checked = host.run("doctor", "--boot", "--json", "--image", "box").json()
    assert [(one["accelerator"], one["usable"]) for one in checked["machines"]] == [("kvm", False), ("tcg", True)]
    assert "this kernel did not come up on KVM here" in checked["machines"][0]["reason"]

    forced = host.run("run", "--accelerator", "kvm", "box", "--", "true")
    assert forced.code == 125
    assert "silent" in forced.errors
    assert host.json("vm", "list") == []

    next((host.path / "cache").glob("kernels-on-kvm.json")).unlink()
    checked = host.run("doctor", "--boot", "--image", "box").ok()
    assert "this kernel does not come up on KVM here" in checked.text, "which is told, and VMs work all the same"

    next((host.path / "cache").glob("kernels-on-kvm.json")).unlink()
    kvm.let_kernels("crawl")
    crawled = host.run("run", "box", "--", "true").ok()
    assert "its first program did not run after" in crawled.errors
    assert kvm.tried == ["hang", "hang", "hang", "crawl"]
    assert host.leftovers() == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [("none", "there is no /dev/kvm"), ("null", "KVM does not run guests here"), ("denied", "no permission")],
)
def test_doctor_says_what_is_wrong_with_kvm_and_that_machines_are_emulated(
    fresh_home: BangerHome, user_home: BangerHome, kind: str, words: str
) -> None:
    host = with_kvm(user_home if kind == "denied" else fresh_home, kind)
    (check,) = [one for one in host.run("doctor", "--json").json() if one["name"] == "kvm"]
    assert words in check["detail"]
    assert "emulated" in check["detail"]
