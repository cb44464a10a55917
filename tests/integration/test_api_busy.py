"""The HTTP surface while owners are busy: reading does not wait, and a crowd of callers shares one pull."""

from __future__ import annotations

import logging
import socket
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from loguru import logger

from banger.actors.messages import PullImage
from banger.client import Client, path_of
from banger.core.ports import ImageRequest
from banger.core.wire.vm_spec import VmSpec
from banger.core.wire.vms import CreateVmBody
from tests.support import origins
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.faulty_registry import faulty_registry, gated
from tests.support.needs import needs_descriptors
from tests.support.served import Served
from tests.support.waiting import eventually

READ_BUDGET_S = 0.25


@pytest.fixture
def served(tmp_path):
    world = World(tmp_path / "home", FakeVmm())
    served = Served(world)
    yield served
    world.images.gate.open()
    served.close()
    world.stop()


def test_list_and_show_answer_within_their_budget_while_ten_pulls_run(served):
    world, client = served.world, served.client
    world.do(PullImage("alpine", ImageRequest("alpine")))
    world.images.gate.close()
    for number in range(10):
        world.supervisor.submit(PullImage(f"image-{number}", ImageRequest(f"image-{number}")))
    eventually(lambda: len(world.images.builds) == 11, what="all ten are building")
    client.get("/v1/images")  # the first request imports what it needs

    for path in ("/v1/images", path_of("images", "alpine"), "/v1/operations", "/v1/vms"):
        times = []
        for _ in range(20):
            begun = time.monotonic()
            client.get(path)
            times.append(time.monotonic() - begun)
        assert statistics.median(times) < READ_BUDGET_S, path  # this machine is shared; bench/listing.py measures

    assert len(world.operations.active()) == 10


@needs_descriptors(1024)
def test_hundred_clients_of_a_missing_image_get_one_pull_and_one_row(tmp_path):
    callers = 100
    with faulty_registry() as registry:
        origins.serve_all(registry, tmp_path)
        world = origins.real_world(tmp_path / "home")
        served, gate = Served(world), threading.Event()
        registry.on("/blobs/", gated(gate))  # the configuration: nothing goes on before all callers are there

        def call(_):
            body = {"reference": registry.reference(origins.APP), "name": "app"}
            return Client(world.layout.socket).long("POST", "/v1/images/pull", body=body)["id"]

        try:
            with ThreadPoolExecutor(callers) as pool:
                answers = pool.map(call, range(callers))
                eventually(lambda: [len(op._waiters) for op in world.operations.active()] == [callers],
                           what="all callers share one operation")  # fmt: skip
                gate.set()
                assert len(set(answers)) == 1
        finally:
            gate.set()
            served.close()
            world.stop()
        asked = [asked.path for asked in registry.requests if "/blobs/" in asked.path]

    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == 3


@needs_descriptors(2200)
def test_thousand_callers_that_say_nothing_keep_nobody_from_being_answered(served, caplog):
    """Both ends are in this process: each takes two descriptors. Nor do they fill the log when they leave."""
    caplog.set_level(logging.WARNING)
    ours = []
    sink = logger.add(ours.append, level="WARNING")
    with ExitStack() as held:
        for number in range(1000):
            sock = held.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(str(served.world.layout.socket))
            sock.sendall(
                (b"", b"GET /v1/vms HT", b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")[number % 3]
            )
        eventually(lambda: served.connections == 1000, what="all of them are connected")
        begun = time.monotonic()
        assert served.client.get("/v1/vms") == []
        assert time.monotonic() - begun < 5, "a few milliseconds on a machine of its own"
    eventually(lambda: served.connections == 0, what="the daemon has let go of all of them")
    logger.remove(sink)
    assert [*ours, *(record for record in caplog.records if "Invalid HTTP" not in record.message)] == []


def test_three_hundred_machines_asked_for_at_once_are_all_made_and_taken_away(served):
    world, client = served.world, served.client
    for _ in range(300):
        client.call("POST", "/v1/vms", body=CreateVmBody(VmSpec("alpine", network="none")))
    eventually(lambda: not world.operations.active(), what="all are made")

    vms = client.get("/v1/vms", {"state": "stopped"})
    assert len({vm["name"] for vm in vms}) == 300
    assert world.images.builds == ["alpine"]

    for vm in vms:
        client.call("DELETE", path_of("vms", vm["id"]))
    eventually(lambda: not world.operations.active(), what="all are gone")
    assert client.get("/v1/vms") == []
    assert world.leftovers() == []
