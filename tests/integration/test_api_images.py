"""Routes of images, kernels and the catalog, over real owners: what a caller gets for each verb."""

from __future__ import annotations

import os
import shutil

import pytest

from banger.client import path_of
from banger.core.errors import BangerError, ErrorKind
from tests.support.ext4_reader import mke2fs, needs_e2fsprogs
from tests.support.fakes import World
from tests.support.faulty_registry import faulty_registry, stalled
from tests.support.registry import digest_of
from tests.support.served import Served
from tests.support.waiting import eventually

CATALOG = b'[images.app]\nsource = "ghcr.io/team/app:1"\n'


@pytest.fixture
def served(tmp_path):
    world = World(tmp_path / "home")
    served = Served(world)
    yield served
    served.close()
    assert world.leftovers() == []
    world.stop()


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.ext4"
    file.write_text("sha256:own")
    return file


def failure_of(call, *arguments) -> BangerError:
    with pytest.raises(BangerError) as caught:
        call(*arguments)
    return caught.value


def post(served, route, **body):
    return served.client.long("POST", route, None, body)


def pull(served, reference="example.com/app:1"):
    return post(served, "/v1/images/pull", reference=reference)


def linted(served, files, name="example.com/app:1", **query):
    """The report on an image with these files in it."""
    image = pull(served, name)
    tree = served.world.layout.staging.parent / "tree"
    for path, (content, mode) in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
        (tree / path).chmod(mode)
    rootfs = served.world.layout.image_dir(image["id"]) / "rootfs.ext4"
    rootfs.unlink()
    tree.mkdir(exist_ok=True)
    mke2fs(rootfs, source=tree)
    shutil.rmtree(tree)
    return served.client.get(path_of("images", name, "lint"), query)


def codes(report) -> set[str]:
    return {finding["code"] for finding in report["findings"]}


def test_own_file_is_registered_promoted_and_tagged(served, own):
    registered = post(served, "/v1/images/register", name="own", rootfs_path=str(own))
    assert (registered["managed"], registered["rootfs_path"]) == (False, str(own))

    promoted = post(served, path_of("images", "own", "promote"))
    tagged = post(served, path_of("images", "own", "tag"), name="team/own:1")

    assert (promoted["managed"], promoted["rootfs_path"]) == (True, "")
    assert tagged["digest"] == promoted["digest"]
    assert own.read_text() == "sha256:own"
    assert {image["name"] for image in served.client.get("/v1/images")} == {"own", "team/own:1"}


@pytest.mark.parametrize("path", ["own", "/own\0", "\0"])
@pytest.mark.parametrize(
    ("place", "field", "more"),
    [
        ("images/register", "rootfs_path", {}),
        ("images/register", "seed_path", {"rootfs_path": "/own"}),
        ("kernels/import", "kernel_path", {}),
        ("kernels/import", "modules_path", {"kernel_path": "/own"}),
        ("kernels/import", "initrd_path", {"kernel_path": "/own"}),
    ],
)
def test_path_that_is_relative_or_none_is_a_usage_error(served, place, field, more, path):
    error = failure_of(lambda: post(served, f"/v1/{place}", **{"name": "own", **more, field: path}))
    assert error.kind is ErrorKind.USAGE


def test_image_is_exported_and_pushed(served, tmp_path):
    pull(served)
    image = path_of("images", "example.com/app:1")

    written = post(served, f"{image}/export", path=str(tmp_path / "app.bundle"), form="oci")
    pushed = post(served, f"{image}/push", reference="ghcr.io/me/app:1")

    assert (tmp_path / "app.bundle").stat().st_size == written["size_bytes"]
    assert pushed["digest"].startswith("sha256:")
    assert failure_of(lambda: post(served, f"{image}/push", reference="x/y", form="zip")).kind is ErrorKind.USAGE


def test_stopped_vm_is_committed(served):
    post(served, "/v1/vms", name="web", spec={"image": "example.com/app:1", "kernel": "debian-cloud"})
    image = post(served, path_of("vms", "web", "commit"), name="golden", keep=["/etc/machine-id"])
    assert (image["name"], image["source"]) == ("golden", "commit:web")


def test_prune_removes_what_no_vm_uses_and_tells_the_size(served):
    pull(served)
    assert post(served, "/v1/system/prune", nouns=["image"], dry_run=True)["removed"] == []

    report = post(served, "/v1/system/prune", nouns=["image"], unused=True)

    assert report["removed"] == ["image example.com/app:1"]
    assert report["freed_bytes"] > 0
    assert served.client.get("/v1/images") == []


@pytest.mark.parametrize(
    ("body", "name", "source"),
    [
        ({"name": "debian-cloud"}, "debian-cloud", "apt:linux-image-cloud-"),
        ({"source": "oci:ghcr.io/me/k:1"}, "ghcr.io/me/k:1", "oci:ghcr.io/me/k:1"),
        ({"source": "ghcr.io/me/k:1", "name": "lab"}, "lab", "oci:ghcr.io/me/k:1"),
        ({"source": f"https://k.example/z#sha256={'0' * 64}", "name": "lab"}, "lab", "https://k.example/z#sha256="),
        ({"source": "debian-cloud", "name": "lab"}, "lab", "apt:linux-image-cloud-"),
    ],
)
def test_kernel_is_pulled_from_its_source(served, body, name, source):
    kernel = post(served, "/v1/kernels/pull", **body)
    assert kernel["name"] == name
    assert kernel["source"].startswith(source)


@pytest.mark.parametrize(
    "body", [{}, {"source": f"https://k.example/z#sha256={'0' * 64}"}, {"source": "apt:-oX=1", "name": "k"}]
)
def test_kernel_without_name_or_sound_source_is_a_usage_error(served, body):
    assert failure_of(lambda: post(served, "/v1/kernels/pull", **body)).kind is ErrorKind.USAGE
    assert served.world.kernels.builds == []


@needs_e2fsprogs
def test_lint_tells_what_is_missing(served):
    report = linted(served, {"etc/hostname": (b"x\n", 0o644)})
    assert {"shell-none", "init-none"} <= codes(report)
    assert (report["image"], report["kernel"], report["errors"]) == ("example.com/app:1", "", 0)
    assert report["warnings"] == 1


@needs_e2fsprogs
def test_lint_reads_the_configuration_of_the_kernel(served):
    kernel = post(served, "/v1/kernels/pull", name="debian-cloud")
    config = served.world.layout.kernel_dir(kernel["id"]) / "config"
    config.write_text("CONFIG_EXT4_FS=y\n# CONFIG_OVERLAY_FS is not set\n")

    report = linted(served, {}, kernel="debian-cloud")

    assert (report["kernel"], report["kernel_config"]) == ("debian-cloud", True)
    assert "kernel-boot" in codes(report)
    assert report["errors"] >= 1


@needs_e2fsprogs
def test_lint_says_nothing_of_a_kernel_of_which_nothing_is_known(served):
    kernel = post(served, "/v1/kernels/pull", name="debian-cloud")
    os.mkfifo(served.world.layout.kernel_dir(kernel["id"]) / "config")

    report = linted(served, {}, kernel="debian-cloud")

    assert (report["kernel"], report["kernel_config"]) == ("debian-cloud", False)
    assert not any(code.startswith("kernel-") for code in codes(report))


def test_lint_of_what_is_no_ext4_is_invalid(served):
    pull(served)
    error = failure_of(served.client.get, path_of("images", "example.com/app:1", "lint"))
    assert error.kind is ErrorKind.INVALID


def test_lint_of_an_unknown_image_or_kernel_is_not_found(served):
    pull(served)
    assert failure_of(served.client.get, path_of("images", "nothing", "lint")).kind is ErrorKind.NOT_FOUND
    path = path_of("images", "example.com/app:1", "lint")
    assert failure_of(served.client.get, path, {"kernel": "nothing"}).kind is ErrorKind.NOT_FOUND


@needs_e2fsprogs
def test_image_whose_name_ends_in_lint_is_shown_and_linted(served):
    assert "init-none" in codes(linted(served, {}, name="example.com/tools/lint"))
    assert served.client.get(path_of("images", "example.com/tools/lint"))["name"] == "example.com/tools/lint"


def test_refreshed_catalog_is_used_by_the_next_request(served):
    with faulty_registry() as web:
        web.serve_blob("x", CATALOG)
        source = f"http://{web.host}/v2/x/blobs/{digest_of(CATALOG)}"
        body = {"source": source, "digest": digest_of(CATALOG), "name": "team"}
        assert failure_of(pull, served, "app").kind is ErrorKind.NOT_FOUND

        done = served.client.call("POST", "/v1/catalog/refresh", body=body)

    assert (done["images"], done["kernels"]) == (["app"], [])
    assert pull(served, "app")["source"] == "ghcr.io/team/app:1"
    assert "app" in {entry["name"] for entry in served.client.get("/v1/catalog")["images"]}


def test_caller_that_hangs_up_ends_the_refresh(served):
    with faulty_registry() as web:
        web.serve_blob("x", CATALOG)
        web.always("/x/", stalled(after=5))
        source = f"http://{web.host}/v2/x/blobs/{digest_of(CATALOG)}"
        body = {"source": source, "digest": digest_of(CATALOG), "name": "team"}

        error = failure_of(lambda: served.client.call("POST", "/v1/catalog/refresh", body=body, timeout_s=0.2))

        assert error.kind is ErrorKind.TIMEOUT
        assert web.abandoned.wait(5.0), "the daemon went on waiting for the server"
    eventually(lambda: not served.world.layout.catalog_dir.exists(), what="nothing was written")
