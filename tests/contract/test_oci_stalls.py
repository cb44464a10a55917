"""Registries that stall: it is told early, and given up after one total, however they do it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.oci import stall_timer
from banger.oci.reference import Reference
from banger.oci.registry import Endpoint, RegistryClient, Timeouts
from banger.oci.retry import RetryPolicy
from tests.support.faulty_registry import (
    Fault,
    FaultyRegistry,
    dripping,
    dripping_head,
    faulty_registry,
    redirecting,
    silent,
    stalled,
    status,
)
from tests.support.oci_client import Puller
from tests.support.registry import BuiltImage, Layer, Node, build_image
from tests.support.waiting import eventually

#: Each case waits for a time-out.
pytestmark = pytest.mark.slow

NAME = "test/app:1"
LIMIT_S = 1.0
#: Far more than that, for busy machines; those that never give up take for ever.
LONGEST_S = 10.0
TIMEOUTS = Timeouts(connect_s=0.4, read_s=0.4, stall_s=LIMIT_S)
#: Never the number of attempts, always the clock.
UNTIRING = RetryPolicy(attempts=1_000_000, first_s=0.01, longest_s=0.05)
DRIP_S = 0.05


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with faulty_registry() as server:
        yield server


@pytest.fixture
def image(registry: FaultyRegistry) -> BuiltImage:
    image = build_image([Layer({"data": Node(bytes(300_000))}, "plain")])
    registry.serve(NAME, image)
    return image


@pytest.fixture
def puller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Puller:
    monkeypatch.setattr(stall_timer, "_NOTICE_S", 0.25)
    return Puller(tmp_path / "blobs", timeouts=TIMEOUTS, retry=UNTIRING)


def failure(puller: Puller, reference: str) -> tuple[BangerError, float]:
    """Why a pull fails, and after how many seconds."""
    started = time.monotonic()
    with pytest.raises(BangerError) as caught:
        puller.pull(reference)
    return caught.value, time.monotonic() - started


STALLS = [
    pytest.param(silent(), id="no answer"),
    pytest.param(dripping_head(DRIP_S), id="headers drip"),
    pytest.param(stalled(after=10), id="body stops"),
    pytest.param(dripping(DRIP_S), id="body drips"),
]


@pytest.mark.parametrize("part", ["/blobs/", "/manifests/", "/token"])
@pytest.mark.parametrize("fault", STALLS)
def test_registry_that_stalls_is_told_early_and_given_up_after_the_total(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller, part: str, fault: Fault
) -> None:
    registry.token_users[""] = ""
    registry.always(image.layer_digests[0] if part == "/blobs/" else part, fault)
    if part == "/token":
        registry.contents["/token"] = replace(registry.contents[f"/v2/test/app/manifests/{image.digest}"])

    error, seconds = failure(puller, registry.reference(NAME))

    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.message.startswith(f'registry "{registry.host}" stalls: ')
    assert error.message.endswith("in 1 s")
    assert "registry.stall_timeout_s" in error.hint
    assert LIMIT_S * 0.9 < seconds < LONGEST_S
    assert f'data from registry "{registry.host}" for 0.25 s; given up after 1 s' in puller.notes[0]
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("oci-")])


def test_storage_behind_a_redirect_that_stalls_is_given_up_too(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    puller.timeouts = Timeouts(connect_s=2.0, read_s=1.0, stall_s=2.0)  # in which the registry itself answers
    with faulty_registry() as storage:
        registry.always(image.layer_digests[0], redirecting(f"http://{storage.host}/blob"))
        storage.always("/blob", silent())
        error, seconds = failure(puller, registry.reference(NAME))

    assert "stalls" in error.message
    assert f'server "{storage.host}" did not answer in time' in error.cause
    assert seconds < LONGEST_S


def test_tls_that_is_never_shaken_hands_on_is_given_up(puller: Puller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reference = Reference.parse(f"127.0.0.1:{listener.getsockname()[1]}/{NAME}")
        client = RegistryClient(
            reference,
            Endpoint(reference.host, plain_http=False),
            puller.token,
            note=puller.notes.append,
            timeouts=TIMEOUTS,
            retry=UNTIRING,
        )
        started = time.monotonic()
        with pytest.raises(BangerError, match="stalls: no data") as caught:
            client.get_document("manifests/1", "*/*", 1 << 20, "image")

    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert time.monotonic() - started < LONGEST_S
    assert puller.notes


def test_registry_that_is_slow_but_gets_ahead_is_waited_for(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    puller.timeouts = Timeouts(connect_s=2.0, read_s=2.0, stall_s=2.0)
    registry.on(image.layer_digests[0], dripping(0.25, piece=30_000))
    started = time.monotonic()

    assert puller.pull(registry.reference(NAME)) == [image.blobs[image.layer_digests[0]]]
    assert time.monotonic() - started > puller.timeouts.stall_s


def test_registry_that_answers_with_errors_does_not_stall(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    puller.retry = RetryPolicy(attempts=4, first_s=0.5, longest_s=0.5)
    registry.always(image.layer_digests[0], status(503))

    error, seconds = failure(puller, registry.reference(NAME))

    assert "answered 503" in error.message
    assert seconds > LIMIT_S


def test_stall_in_the_middle_of_a_blob_is_overcome_by_another_attempt(
    registry: FaultyRegistry, image: BuiltImage, puller: Puller
) -> None:
    registry.on(image.layer_digests[0], stalled(after=100_000), silent())

    assert puller.pull(registry.reference(NAME)) == [image.blobs[image.layer_digests[0]]]


def test_blobs_that_stall_together_are_told_of_once(registry: FaultyRegistry, puller: Puller) -> None:
    image = build_image([Layer({name: Node(bytes(1000))}, "plain") for name in "abcd"])
    registry.serve(NAME, image)
    for digest in image.layer_digests:
        registry.always(digest, silent())

    failure(puller, registry.reference(NAME))

    assert len(puller.notes) == len(set(puller.notes))
