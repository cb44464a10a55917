"""Catalogs over a real transport: pinned, whole or not at all, in use at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from banger.catalog import Catalog
from banger.catalog.refresh import MAX_BYTES, MEDIA_TYPE, CatalogRequest, refresh
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.layout import Layout
from banger.oci.artifact_client import Registries
from tests.support.faulty_registry import (
    endless,
    faulty_registry,
    redirecting,
    replaced,
    silent,
    status,
    truncated,
)
from tests.support.registry import OCI_MANIFEST, descriptor, digest_of, to_json
from tests.support.waiting import eventually

TEAM = (
    b'[images.app]\nsource = "ghcr.io/team/app:1"\nsummary = "ours"\n[kernels.lab]\nsource = "oci:ghcr.io/team/lab"\n'
)
NEWER = b'[images.app]\nsource = "ghcr.io/team/app:2"\n'


@pytest.fixture(scope="module")
def server():
    with faulty_registry() as server:
        yield server


@pytest.fixture
def layout(tmp_path):
    return Layout.from_environment({"BANGER_HOME": str(tmp_path)})


@pytest.fixture
def catalog(layout):
    return Catalog.load(layout)


@pytest.fixture(autouse=True)
def only_honest_answers(server):
    yield
    server._once.clear()
    server._always.clear()
    server.requests.clear()


def url_of(server, content: bytes) -> str:
    server.serve_blob("web", content)
    return f"http://{server.host}/v2/web/blobs/{digest_of(content)}"


def push(server, content: bytes, count: int = 1, **facts) -> str:
    """Put an artifact with the content as its layer (or layers) into the registry; its digest."""
    config = descriptor(b"{}", "application/vnd.oci.empty.v1+json")
    layers = [{**descriptor(content, MEDIA_TYPE), **facts}] * count
    manifest = to_json({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
    server.serve_blob("team", content)
    server.serve_manifest(f"team:{digest_of(manifest)}", manifest, OCI_MANIFEST)
    return digest_of(manifest)


def fetch(catalog, source, digest="", name="team", operation=None):
    registries = Registries(Config.load(Path("/nonexistent"), {}), {})
    return refresh(
        catalog,
        registries,
        CatalogRequest.parse(source, digest, name),
        operation or Operation("catalog.refresh", source),
    )


def refused(catalog, layout, *arguments) -> BangerError:
    """A refresh that fails and leaves everything as it was."""
    before = {path: path.read_text() for path in layout.catalog_dir.glob("*")}
    entries = catalog.entries()
    with pytest.raises(BangerError) as caught:
        fetch(catalog, *arguments)
    assert {path: path.read_text() for path in layout.catalog_dir.glob("*")} == before
    assert catalog.entries() == entries
    return caught.value


def test_refresh_from_a_url_is_in_use_at_once_and_remembers_where_it_came_from(catalog, layout, server):
    url = url_of(server, TEAM)

    done = fetch(catalog, url, digest_of(TEAM))

    file = layout.catalog_dir / "team.toml"
    assert (done.path, done.images, done.kernels) == (str(file), ("app",), ("lab",))
    assert catalog.image("app").source == "ghcr.io/team/app:1"
    assert f"# source: {url}\n# digest: {digest_of(TEAM)}\n" in file.read_text()
    assert file.read_text().endswith(TEAM.decode())
    assert [path.name for path in layout.catalog_dir.iterdir()] == ["team.toml"]
    assert Catalog.load(layout).entries() == catalog.entries()


@pytest.mark.parametrize("pinned_by", ["reference", "option"])
def test_refresh_from_a_registry(catalog, server, pinned_by):
    digest = push(server, TEAM)
    name = f"oci:{server.host}/team"

    done = fetch(catalog, f"{name}@{digest}") if pinned_by == "reference" else fetch(catalog, f"{name}:1", digest)

    assert done.digest == digest
    assert catalog.kernel("lab").source == "oci:ghcr.io/team/lab"


def test_refresh_replaces_what_was_fetched_before(catalog, layout, server):
    fetch(catalog, url_of(server, TEAM), digest_of(TEAM))

    fetch(catalog, url_of(server, NEWER), digest_of(NEWER))

    assert catalog.image("app").source == "ghcr.io/team/app:2"
    assert catalog.kernel("lab") is None
    assert len(list(layout.catalog_dir.iterdir())) == 1


def test_refresh_never_overwrites_a_file_written_by_hand(catalog, layout, server):
    layout.catalog_dir.mkdir(parents=True)
    (layout.catalog_dir / "team.toml").write_text("# mine\n")

    error = refused(catalog, layout, url_of(server, TEAM), digest_of(TEAM))

    assert error.kind is ErrorKind.ALREADY_EXISTS
    assert "--name" in error.hint


def test_directory_that_cannot_be_written_is_denied(catalog, layout, server):
    layout.config.mkdir(parents=True)
    layout.catalog_dir.write_text("in the way")
    with pytest.raises(BangerError, match="cannot write") as caught:
        fetch(catalog, url_of(server, TEAM), digest_of(TEAM))
    assert caught.value.kind is ErrorKind.DENIED


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"\xff", "utf-8"),
        (b"[images", "table declaration"),
        (b"", "no entries"),
        (b"[vms.x]\nsource = 'x'", "vms"),
        (b"[images.x]\nsource = 'ghcr.io/UPPER/x'", "images.x.source"),
        (b"[images.x]\nsource = 'a'\nhost = 'debian'\nfallback = 'a b'", "images.x.fallback"),
        (b"[kernels.x]\nsource = 'apt:-oDebug=1'", "kernels.x.source"),
        (b"[kernels.x]\nsource = 'https://x.example/vmlinuz'", "kernels.x.source"),
        (b"#" * (MAX_BYTES + 1), "longer than"),
    ],
)
def test_unsound_catalog_is_refused_and_the_old_one_stays(catalog, layout, server, content, cause):
    fetch(catalog, url_of(server, TEAM), digest_of(TEAM))

    error = refused(catalog, layout, url_of(server, content), digest_of(content))

    assert error.kind is ErrorKind.INVALID
    assert cause in error.cause


def test_content_of_another_digest_is_refused(catalog, layout, server):
    error = refused(catalog, layout, url_of(server, TEAM), digest_of(NEWER))
    assert error.kind is ErrorKind.INVALID
    assert digest_of(TEAM) in error.cause


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"mediaType": "application/toml"}, MEDIA_TYPE),
        ({"size": MAX_BYTES + 1}, "longer than"),
        ({"count": 2}, "more than 1"),
        ({"count": 0}, MEDIA_TYPE),
    ],
)
def test_artifact_that_is_no_catalog_is_refused(catalog, layout, server, facts, cause):
    error = refused(catalog, layout, f"oci:{server.host}/team@{push(server, TEAM, **facts)}")
    assert error.kind is ErrorKind.INVALID
    assert cause in error.cause


def test_blob_that_the_registry_changed_is_refused(catalog, layout, server):
    digest = push(server, TEAM)
    server.always("/blobs/", replaced(TEAM.replace(b"app:1", b"app:9")))
    error = refused(catalog, layout, f"oci:{server.host}/team@{digest}")
    assert error.kind is ErrorKind.INVALID
    assert "does not match its digest" in error.cause


def test_transfer_that_breaks_is_tried_again(catalog, server):
    url = url_of(server, TEAM)
    server.on("/web/", truncated(10), status(503))
    fetch(catalog, url, digest_of(TEAM))
    assert len(server.asked("/web/")) == 3


def test_endless_body_ends_at_the_limit(catalog, layout, server):
    url = url_of(server, TEAM)
    server.always("/web/", endless())
    assert "longer than" in refused(catalog, layout, url, digest_of(TEAM)).cause


def test_plain_http_to_another_host_is_denied_also_behind_a_redirect(catalog, layout, server):
    url = url_of(server, TEAM)
    server.always("/web/", redirecting("http://catalogs.invalid/team.toml"))
    assert refused(catalog, layout, url, digest_of(TEAM)).kind is ErrorKind.DENIED
    assert refused(catalog, layout, "http://catalogs.invalid/t.toml", digest_of(TEAM)).kind is ErrorKind.DENIED


def test_cancelled_refresh_ends_at_once(catalog, server):
    url, operation = url_of(server, TEAM), Operation("catalog.refresh", "x")
    server.always("/web/", silent())
    failures = []

    def run():
        with pytest.raises(BangerError) as caught:
            fetch(catalog, url, digest_of(TEAM), "team", operation)
        failures.append(caught.value.kind)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: server.asked("/web/"), what="the server is asked")
    operation.cancel("changed my mind")
    thread.join(5.0)

    assert failures == [ErrorKind.CANCELLED]
