"""Every way a registry can spoil a layer: the pull resumes, or ends with a clear error and publishes nothing."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci.credentials import Credential
from tests.support.faulty_registry import (
    Fault,
    FaultyRegistry,
    announcing,
    chunked,
    corrupted,
    disconnecting,
    endless,
    faulty_registry,
    redirecting,
    registry_error,
    replaced,
    silent,
    stalled,
    status,
    truncated,
    without_ranges,
    wrong_range,
)
from tests.support.oci_client import LONG_TIMEOUTS, BackgroundPull, Puller
from tests.support.registry import BuiltImage, Layer, Node, build_image
from tests.support.waiting import eventually

NAME = "test/app:1"
NOISE = random.Random(7).randbytes(300_000)


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with faulty_registry() as server:
        yield server


@pytest.fixture
def image(registry: FaultyRegistry) -> BuiltImage:
    image = build_image([Layer({"data/noise": Node(NOISE)}, "plain")])
    registry.serve(NAME, image)
    return image


@pytest.fixture
def layer(image: BuiltImage) -> str:
    """The path part that names the only layer."""
    return f"/blobs/{image.layer_digests[0]}"


@pytest.fixture
def puller(tmp_path: Path) -> Puller:
    return Puller(tmp_path / "blobs")


def content(image: BuiltImage) -> bytes:
    return image.blobs[image.layer_digests[0]]


def test_blob_after_a_cut_connection_resumes_where_it_broke(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    registry.on(layer, truncated(after=100_000), truncated(after=100_000))

    assert puller.pull(registry.reference(NAME)) == [content(image)]
    assert [asked.headers.get("range") for asked in registry.asked(layer)] == [None, "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([disconnecting()], id="dropped request"),
        pytest.param([stalled(after=1000)], id="stall"),
        pytest.param([silent()], id="no answer"),
        pytest.param([status(500)], id="500"),
        pytest.param([status(503, {"Retry-After": "0"})], id="503"),
        pytest.param([status(429, {"Retry-After": "86400"})], id="429 with an absurd pause"),
        pytest.param([status(429, {"Retry-After": "soon"})], id="429 with nonsense"),
        pytest.param([chunked()], id="chunked without a length"),
        pytest.param([announcing("²")], id="length that is none"),
        pytest.param([announcing("9" * 5000)], id="length of 5000 digits"),
        pytest.param([truncated(after=1000), without_ranges()], id="range ignored"),
        pytest.param([truncated(after=1000), wrong_range(shift=-10)], id="another range than asked for"),
        pytest.param([truncated(after=1000), status(416)], id="range refused"),
        pytest.param([truncated(after=0)], id="empty"),
    ],
)
def test_blob_after_a_passing_fault_is_complete(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller, faults: list[Fault]
) -> None:
    registry.on(layer, *faults)

    assert puller.pull(registry.reference(NAME)) == [content(image)]
    assert puller.partial() == []


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        pytest.param(corrupted(), ErrorKind.INVALID, "hash to", id="wrong digest"),
        pytest.param(replaced(b"short"), ErrorKind.INVALID, "sends 5 bytes", id="wrong size"),
        pytest.param(endless(), ErrorKind.INVALID, "sends more bytes", id="endless body"),
        pytest.param(truncated(after=10), ErrorKind.UNAVAILABLE, "127.0.0.1", id="keeps breaking"),
        pytest.param(silent(), ErrorKind.UNAVAILABLE, "did not answer in time", id="keeps silent"),
        pytest.param(stalled(after=0), ErrorKind.UNAVAILABLE, "did not answer in time", id="keeps stalling"),
        pytest.param(status(404), ErrorKind.NOT_FOUND, "layer", id="404"),
        pytest.param(status(403), ErrorKind.DENIED, "refused access", id="403"),
        pytest.param(
            status(500, body=registry_error("UNKNOWN", "disk on fire")), ErrorKind.UNAVAILABLE, "on fire", id="500"
        ),
        pytest.param(status(418), ErrorKind.UNAVAILABLE, "418", id="odd status"),
        pytest.param(replaced(registry_error("DENIED")), ErrorKind.INVALID, "bytes", id="error with status 200"),
    ],
)
def test_blob_with_a_lasting_fault_fails_clearly_and_publishes_nothing(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller, fault: Fault, kind: ErrorKind, words: str
) -> None:
    registry.always(layer, fault)

    with pytest.raises(BangerError, match=words) as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is kind
    assert puller.published() == []


def test_blob_wrong_because_of_a_stale_part_is_fetched_anew(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    part = puller.store.path(image.layer_digests[0]).with_suffix(".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\xff" * 5000)

    assert puller.pull(registry.reference(NAME)) == [content(image)]
    assert [asked.headers.get("range") for asked in registry.asked(layer)] == ["bytes=5000-", None]


def test_blob_damaged_on_disk_is_fetched_again(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    puller.pull(registry.reference(NAME))
    puller.store.path(image.layer_digests[0]).write_bytes(bytes(len(content(image))))

    assert puller.pull(registry.reference(NAME)) == [content(image)]


def test_blob_present_is_not_asked_for_again(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    puller.pull(registry.reference(NAME))
    puller.pull(registry.reference(NAME))

    assert len(registry.asked(layer)) == 1


def test_blob_redirected_to_another_host_arrives_without_credentials_there(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    registry.token_users[""] = ""
    with faulty_registry() as storage:
        storage.serve(NAME, image)
        registry.always(layer, redirecting(f"http://{storage.host}/v2/test/app{layer}"))

        assert puller.pull(registry.reference(NAME)) == [content(image)]

    assert [asked.authorization for asked in storage.requests] == [""]
    assert registry.asked(layer)[0].authorization.startswith("Bearer ")


def test_blob_redirected_to_a_host_that_wants_a_login_is_refused_without_one(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    puller.credential = Credential("alice", "s3cret")
    with faulty_registry() as thief:
        registry.always(layer, redirecting(f"http://{thief.host}/x"))
        thief.always("/x", status(401, {"WWW-Authenticate": f'Bearer realm="http://{thief.host}/token"'}))
        with pytest.raises(BangerError) as failure:
            puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.DENIED
    assert [(asked.path, asked.authorization) for asked in thief.requests] == [("/x", "")]


def test_blob_redirected_in_circles_is_invalid(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    registry.always(layer, redirecting(f"http://{registry.host}/v2/test/app{layer}"))

    with pytest.raises(BangerError, match="in circles") as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID


def test_blob_redirected_to_what_is_no_address_is_told(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    registry.always(layer, redirecting("https://[::1/x"))

    with pytest.raises(BangerError, match="Invalid IPv6 URL") as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.UNAVAILABLE


@pytest.mark.parametrize("fault", [stalled(after=1000), silent()], ids=["in the body", "before the answer"])
def test_blob_cancelled_while_the_registry_stalls_ends_at_once_and_keeps_what_arrived(
    registry: FaultyRegistry, image: BuiltImage, layer: str, tmp_path: Path, fault: Fault
) -> None:
    puller = Puller(tmp_path / "blobs", timeouts=LONG_TIMEOUTS)
    registry.on(layer, truncated(after=5000), fault)
    pull = BackgroundPull(puller, registry.reference(NAME))
    eventually(lambda: len(registry.asked(layer)) == 2)

    assert pull.cancel() < 1.0
    assert pull.failure is not None
    assert pull.failure.kind is ErrorKind.CANCELLED
    assert puller.partial()[0].stat().st_size >= 5000
    assert Puller(tmp_path / "blobs").pull(registry.reference(NAME)) == [content(image)]
    assert registry.asked(layer)[-1].headers["range"].startswith("bytes=")


def test_blob_wanted_by_two_pulls_is_transferred_once(
    registry: FaultyRegistry, image: BuiltImage, layer: str, tmp_path: Path
) -> None:
    first, second = Puller(tmp_path / "blobs", timeouts=LONG_TIMEOUTS), Puller(tmp_path / "blobs")
    second.store = first.store
    registry.on(layer, stalled(after=1000))
    leader = BackgroundPull(first, registry.reference(NAME))
    eventually(lambda: first.partial() and first.partial()[0].stat().st_size == 1000)
    follower = BackgroundPull(second, registry.reference(NAME))
    eventually(lambda: (1000, len(content(image))) in second.progress, what="the follower sees the leader's progress")

    assert len(registry.asked(layer)) == 1
    leader.cancel()
    follower.join()

    assert follower.layers == [content(image)]
    assert [asked.headers.get("range") for asked in registry.asked(layer)] == [None, "bytes=1000-"]


def test_blob_waiting_behind_another_pull_can_be_abandoned(
    registry: FaultyRegistry, image: BuiltImage, layer: str, tmp_path: Path
) -> None:
    first, second = Puller(tmp_path / "blobs", timeouts=LONG_TIMEOUTS), Puller(tmp_path / "blobs")
    second.store = first.store
    registry.on(layer, stalled(after=1000))
    leader = BackgroundPull(first, registry.reference(NAME))
    eventually(first.partial)
    follower = BackgroundPull(second, registry.reference(NAME))
    eventually(lambda: second.progress)

    assert follower.cancel() < 1.0
    assert leader.running
    leader.cancel()


def test_layers_when_one_fails_stop_the_others(registry: FaultyRegistry, tmp_path: Path) -> None:
    image = build_image([Layer({"a": NOISE}, "plain"), Layer({"b": NOISE}, "plain")])
    registry.serve(NAME, image)
    registry.always(image.layer_digests[0], stalled(after=10))
    registry.always(image.layer_digests[1], corrupted())
    puller = Puller(tmp_path / "blobs", timeouts=LONG_TIMEOUTS)

    with pytest.raises(BangerError, match="hash to") as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.INVALID
    assert puller.published() == []


def test_layers_are_fetched_at_most_so_many_at_once(registry: FaultyRegistry, tmp_path: Path) -> None:
    image = build_image([Layer({f"f{i}": NOISE[:10]}, "plain") for i in range(6)])
    registry.serve(NAME, image)
    for digest in image.layer_digests:
        registry.always(digest, stalled(after=1))
    pull = BackgroundPull(Puller(tmp_path / "blobs", timeouts=LONG_TIMEOUTS, parallel=2), registry.reference(NAME))
    eventually(lambda: len(registry.asked("/blobs/")) == 1 + 2, what="the configuration and two layers are asked for")
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("oci-fetch")]
    pull.cancel()

    assert len(workers) == 2
    assert len(registry.asked("/blobs/")) == 1 + 2


def test_progress_is_absolute_and_ends_at_the_total(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller
) -> None:
    registry.on(layer, truncated(after=100_000))
    puller.pull(registry.reference(NAME))
    total = len(content(image))

    assert puller.progress[-1] == (total, total)
    assert max(done for done, _ in puller.progress) == total
    assert [done for done, _ in puller.progress] == sorted(done for done, _ in puller.progress)


def test_pull_without_room_fails_before_the_download(
    registry: FaultyRegistry, image: BuiltImage, layer: str, tmp_path: Path
) -> None:
    puller = Puller(tmp_path / "blobs", free_bytes=lambda _: 1000)

    with pytest.raises(BangerError, match="not enough room") as failure:
        puller.pull(registry.reference(NAME))

    assert failure.value.kind is ErrorKind.EXHAUSTED
    assert str(len(content(image))) in failure.value.cause
    assert registry.asked(layer) == []


def test_pull_on_a_full_disk_is_exhausted_and_gives_the_room_back(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("banger.oci.blobs.os.write", full)
    with pytest.raises(BangerError) as failure:
        puller.pull(registry.reference(NAME))
    monkeypatch.undo()

    assert failure.value.kind is ErrorKind.EXHAUSTED
    assert puller.partial() == []


def test_long_pause_asked_for_is_noted(
    registry: FaultyRegistry, image: BuiltImage, layer: str, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("banger.oci.retry._NOTEWORTHY_S", 0.04)
    registry.on(layer, status(429, {"Retry-After": "60"}))
    puller.pull(registry.reference(NAME))

    assert len(puller.notes) == 1
    assert "limits how much may be pulled" in puller.notes[0]


def test_layer_listed_twice_is_fetched_once(registry: FaultyRegistry, puller: Puller) -> None:
    image = build_image([Layer({"a": b"1"}), Layer({"b": b"2"}), Layer({"a": b"1"})])
    registry.serve(NAME, image)
    layers = puller.pull(registry.reference(NAME))

    assert layers[0] == layers[2] != layers[1]
    assert len(json.loads(image.manifest)["layers"]) == 3
    assert len(registry.asked(f"/blobs/{image.layer_digests[0]}")) == 1
