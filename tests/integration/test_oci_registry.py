"""The image source against a real registry: reference in, ext4 out."""

from __future__ import annotations

import base64
import json
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import zstandard

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest, ResolvedImage
from banger.layout import Layout
from banger.oci.platform import Platform
from banger.oci.source import OciImageSource
from tests.support.oci_client import Puller
from tests.support.registry import (
    HardLink,
    Layer,
    Link,
    LocalRegistry,
    Node,
    build_image,
    needs_registry,
    running_registry,
)

pytestmark = [pytest.mark.registry, needs_registry]

LOGIN = ("alice", "s3cret")
BASE = Layer(
    {
        "etc/": b"",
        "etc/motd": b"base\n",
        "etc/gone": b"x",
        "bin/": b"",
        "bin/busybox": Node(b"#!/bin/true\n", mode=0o755),
        "bin/sh": Link("busybox"),
        "bin/ls": HardLink("bin/busybox"),
        "srv/data": Node(b"d", mode=0o640, uid=1000, gid=100),
    }
)
TOP = Layer({"etc/motd": b"top\n", "etc/.wh.gone": b""}, "zstd")


class Machine:
    """One installation of banger, as far as images go."""

    def __init__(self, root: Path, env: Mapping[str, str] | None = None) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(root)})
        self.layout.make_directories()
        self.staging = self.layout.staging / "image"
        self.staging.mkdir()
        self.operation = Operation("image.pull", "test")
        self.source = OciImageSource(self.layout, Config.load(self.layout.config_file, {}), env or {})

    def resolve(self, reference: str, platform: str = "") -> ResolvedImage:
        return self.source.resolve(ImageRequest(reference, platform), self.operation)

    def pull(self, reference: str) -> BuiltImage:
        return self.source.build(self.resolve(reference), self.staging, self.operation)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    if shutil.which("htpasswd") is None:
        pytest.skip("htpasswd is not installed")
    with running_registry(tmp_path_factory.mktemp("private"), LOGIN) as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


def debugfs(image: Path, request: str) -> str:
    done = subprocess.run(["debugfs", "-R", request, str(image)], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("docker", [False, True], ids=["OCI", "Docker schema 2"])
def test_image_of_several_layers_becomes_a_clean_file_system(
    registry: LocalRegistry, machine: Machine, docker: bool
) -> None:
    top = Layer(TOP.entries, "plain") if docker else TOP
    name = f"test/layers:{'docker' if docker else 'oci'}"
    pushed = registry.push(name, [BASE, top], config={"Cmd": ["/bin/sh"]}, docker=docker)
    built = machine.pull(registry.reference(name))

    assert built.digest == pushed.digest
    assert built.config.cmd == ("/bin/sh",)
    assert debugfs(built.rootfs, "cat /etc/motd") == "top\n"
    assert "gone" not in debugfs(built.rootfs, "ls /etc")
    assert "User:  1000   Group:   100" in debugfs(built.rootfs, "stat /srv/data")
    assert subprocess.run(["e2fsck", "-fn", built.rootfs], capture_output=True, check=False).returncode == 0
    assert [step.name for step in machine.operation.steps][:2] == ["resolve reference", "fetch layers"]
    assert machine.operation.steps[1].done == machine.operation.steps[1].total > 0


class Mislabelled(Layer):
    """In skippable and other zstd frames, and called a gzip, with OCI even one that need not be in the registry."""

    def blob(self) -> bytes:
        compress = zstandard.ZstdCompressor().compress
        skippable = struct.pack("<II", 0x184D2A50, 4) + b"size"
        return skippable + compress(self.tar()[:700]) + skippable + compress(self.tar()[700:]) + skippable

    def media_type(self, *, docker: bool) -> str:
        if docker:
            return "application/vnd.docker.image.rootfs.diff.tar.gzip"
        return "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


class Nothing(Layer):
    """A layer of no bytes at all."""

    def tar(self) -> bytes:
        return b""

    def blob(self) -> bytes:
        return b""


@pytest.mark.parametrize("docker", [False, True], ids=["OCI", "Docker schema 2"])
def test_image_of_odd_but_valid_parts_becomes_the_same_file_system(
    registry: LocalRegistry, machine: Machine, docker: bool
) -> None:
    name = f"test/odd:{'docker' if docker else 'oci'}"
    layers = [Nothing({}, "plain"), Mislabelled(BASE.entries), TOP]
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    platform = Platform.host()
    other_name = f"linux/{names.get(platform.architecture, platform.architecture)}"
    registry.push(name, layers, docker=docker, platform=other_name)
    built = machine.pull(registry.reference(name))

    assert debugfs(built.rootfs, "cat /etc/motd") == "top\n"
    assert "gone" not in debugfs(built.rootfs, "ls /etc")


def test_image_without_layers_becomes_an_empty_root(registry: LocalRegistry, machine: Machine) -> None:
    registry.push("test/bare:1", [])
    built = machine.pull(registry.reference("test/bare:1"))

    assert set(debugfs(built.rootfs, "ls -p /").split("/")[5::7]) <= {".", "..", "lost+found"}


def test_image_whose_diff_ids_are_wrong_is_refused_and_nothing_kept(registry: LocalRegistry, machine: Machine) -> None:
    diff_ids = ["sha256:" + "0" * 64, "sha256:" + "1" * 64]
    registry.push_image("test/lying:1", build_image([BASE, TOP], diff_ids=diff_ids))

    with pytest.raises(BangerError, match=r"layer \d of 2") as caught:
        machine.pull(registry.reference("test/lying:1"))

    assert caught.value.kind is ErrorKind.INVALID
    assert any(diff_id in caught.value.cause for diff_id in diff_ids)
    assert list(machine.staging.iterdir()) == []


def test_layer_that_another_image_brought_is_not_transferred_again(registry: LocalRegistry, tmp_path: Path) -> None:
    registry.push("test/shared:a", [BASE])
    registry.push("test/shared:b", [BASE, TOP])
    puller = Puller(tmp_path)
    puller.pull(registry.reference("test/shared:a"))
    puller.progress.clear()
    base, top = puller.pull(registry.reference("test/shared:b"))

    assert puller.progress[0][0] in (0, len(base), len(top))
    assert len(puller.published()) == 2


def test_index_in_a_real_registry_gives_each_platform_its_image(registry: LocalRegistry, machine: Machine) -> None:
    amd64 = registry.push("test/multi:amd64", [BASE], platform="linux/amd64")
    arm64 = registry.push("test/multi:arm64", [BASE, TOP], platform="linux/arm64/v8")
    registry.push_index("test/multi:all", [amd64, arm64])
    reference = registry.reference("test/multi:all")

    assert machine.resolve(reference, "linux/amd64").digest == amd64.digest
    assert machine.resolve(reference, "linux/arm64").digest == arm64.digest
    with pytest.raises(BangerError, match="has no linux/s390x variant") as failure:
        machine.resolve(reference, "linux/s390x")
    assert failure.value.kind is ErrorKind.INVALID


def test_moved_tag_is_seen_and_a_digest_stays(registry: LocalRegistry, machine: Machine) -> None:
    old = registry.push("test/moving:1", [BASE])
    new = registry.push("test/moving:1", [TOP])

    assert machine.resolve(registry.reference("test/moving:1")).digest == new.digest
    assert machine.resolve(registry.reference(f"test/moving@{old.digest}")).digest == old.digest


def test_missing_tag_is_not_found(registry: LocalRegistry, machine: Machine) -> None:
    with pytest.raises(BangerError, match="not found") as failure:
        machine.resolve(registry.reference("test/none:1"))
    assert failure.value.kind is ErrorKind.NOT_FOUND


def test_cut_download_is_resumed_from_the_real_registry(registry: LocalRegistry, tmp_path: Path) -> None:
    noise = random.Random(3).randbytes(200_000)
    pushed = registry.push("test/large:1", [Layer({"noise": noise}, "plain")])
    digest = pushed.layer_digests[0]
    puller = Puller(tmp_path)
    part = puller.store.path(digest).with_suffix(".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(pushed.blobs[digest][:150_000])

    assert puller.pull(registry.reference("test/large:1")) == [pushed.blobs[digest]]
    assert puller.progress[0] == (150_000, len(pushed.blobs[digest]))


def docker_login(directory: Path, registry: LocalRegistry, user: str, password: str) -> dict[str, str]:
    """A Docker configuration as ``docker login`` leaves it; the environment that points to it."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    return {"DOCKER_CONFIG": str(directory)}


def test_private_image_is_pulled_with_the_docker_login(private_registry: LocalRegistry, tmp_path: Path) -> None:
    pushed = private_registry.push("team/app:1", [BASE])
    machine = Machine(tmp_path / "home", docker_login(tmp_path / "docker", private_registry, *LOGIN))

    assert machine.pull(private_registry.reference("team/app:1")).digest == pushed.digest


@pytest.mark.parametrize("password", ["", "wrong"], ids=["without a login", "with a wrong one"])
def test_private_image_is_denied(private_registry: LocalRegistry, tmp_path: Path, password: str) -> None:
    private_registry.push("team/app:1", [BASE])
    env = docker_login(tmp_path / "docker", private_registry, "alice", password) if password else {}
    machine = Machine(tmp_path / "home", env)

    with pytest.raises(BangerError, match="refused access") as failure:
        machine.resolve(private_registry.reference("team/app:1"))
    assert failure.value.kind is ErrorKind.DENIED
    assert failure.value.hint == f"docker login {private_registry.host}"


def test_image_pushed_by_another_tool_is_pulled(registry: LocalRegistry, machine: Machine) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    pushed = registry.push("test/origin:1", [BASE, TOP])
    target = registry.reference("test/copy:1")
    places = [f"docker://{registry.reference('test/origin:1')}", f"docker://{target}"]
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", *places], check=True
    )

    assert machine.pull(target).digest == pushed.digest


@pytest.mark.parametrize(
    ("reference", "handled"),
    [("alpine", True), ("python:3.12", True), ("mmdebstrap:host", False), ("apt:linux", False), ("../x", False)],
)
def test_source_handles_references_only(machine: Machine, reference: str, handled: bool) -> None:
    assert machine.source.handles(ImageRequest(reference)) is handled
