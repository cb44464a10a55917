"""The HTTP surface on a real Unix socket, over real owners and fake adapters."""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing, suppress

import pytest

from banger.api import peer
from banger.api.app import ROUTES
from banger.client import path_of
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType, encode
from banger.core.wire.vm_spec import VmSpec
from tests.support.fakes import WAIT_S, World
from tests.support.served import Served
from tests.support.waiting import eventually


@pytest.fixture
def served(tmp_path):
    world = World(tmp_path)
    served = Served(world)
    yield served
    world.images.gate.open()
    served.close()
    world.stop()


def pull(served, reference="example.com/app:1", **more):
    return served.client.long("POST", "/v1/images/pull", None, {"reference": reference, **more})


def test_api_pull_streams_steps_and_ends_with_the_image(served):
    events = []

    image = served.client.long(
        "POST", "/v1/images/pull", None, {"reference": "example.com/app:1"}, on_event=events.append
    )

    assert image["name"] == "example.com/app:1"
    assert image["used_by"] == []
    steps = [event["step"] for event in events if event and event["kind"] == "step_finished"]
    assert steps == ["resolve reference", "fetch layers", "make work seed", "publish"]


def test_api_image_names_with_slashes_and_colons_are_addressed_in_the_path(served):
    pull(served)

    shown = served.client.get(path_of("images", "example.com/app:1"))
    gone = served.client.long("DELETE", path_of("images", "example.com/app:1"))

    assert shown["id"] == gone["id"]
    assert served.client.get("/v1/images") == []


def test_api_long_request_without_wait_answers_202_and_goes_on(served):
    served.world.images.gate.close()

    answer = served.client.call("POST", "/v1/images/pull", None, {"reference": "example.com/app:1"})

    served.world.images.gate.wait_reached()
    operation = served.client.get(path_of("operations", answer["operation"]["id"]))
    assert operation["kind"] == "image.pull"
    served.world.images.gate.open()
    eventually(lambda: served.client.get("/v1/images"), what="the pull nobody waits for is done")


def test_api_request_that_is_refused_for_a_parameter_begins_nothing(served):
    with pytest.raises(BangerError) as refused:
        served.client.call("POST", "/v1/images/pull", {"wait": "maybe"}, {"reference": "example.com/app:1"})

    assert (refused.value.kind, refused.value.subject) == (ErrorKind.USAGE, "wait")
    assert served.client.get("/v1/operations") == []
    assert served.client.get("/v1/images") == []


@pytest.mark.parametrize(
    ("method", "path", "query", "hint"),
    [
        ("DELETE", "/v1/vms/web", {"fource": "true"}, 'did you mean "force"?'),
        ("POST", "/v1/system/prune", {"dry_run": "true"}, "it has wait, timeout_s"),
        ("GET", "/v1/images", {"state": "running"}, "it has none"),
        ("POST", "/v1/images/pull", {"wait": ["true", "false"]}, ""),
    ],
)
def test_api_parameter_that_the_route_would_overlook_is_refused(served, method, path, query, hint):
    served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": {"image": "alpine"}})

    with pytest.raises(BangerError) as refused:
        served.client.call(method, path, query, {"reference": "example.com/app:1"} if "pull" in path else None)

    assert (refused.value.kind, refused.value.hint) == (ErrorKind.USAGE, hint)
    assert refused.value.subject in query
    assert [vm["name"] for vm in served.client.get("/v1/vms")] == ["web"]


def test_api_parameter_that_may_be_repeated_counts_each_time(served):
    served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": {"image": "alpine", "labels": {"a": "1"}}})

    assert served.client.get("/v1/vms", {"label": ["a", "a=1"], "state": ["stopped", "running"]})
    assert served.client.get("/v1/vms", {"label": ["a", "b"]}) == []


def test_api_stream_refuses_a_parameter_that_it_would_overlook(served):
    served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": {"image": "alpine"}})
    channel = served.client.frames(path_of("vms", "web", "files", "put"), {}, {"dir": "/tmp"})

    with closing(channel), pytest.raises(BangerError, match='has no parameter "dir"'):
        channel.receive(WAIT_S)


def test_api_wait_for_a_vm_to_run_ends_when_it_is_deleted(served):
    served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": {"image": "alpine"}})
    request = served.client.start("GET", path_of("vms", "web", "wait"), {"until": "running", "timeout_s": WAIT_S})
    served.client.long("DELETE", path_of("vms", "web"))

    with pytest.raises(BangerError) as ended:
        request.result()

    assert (ended.value.kind, ended.value.subject) == (ErrorKind.NOT_FOUND, "web")


def test_api_caller_that_hangs_up_cancels_what_only_it_wanted(served):
    served.world.images.gate.close()
    request = served.client.start("POST", "/v1/images/pull", None, {"reference": "example.com/app:1"})
    served.world.images.gate.wait_reached()

    request.close()

    eventually(lambda: not served.world.operations.active(), what="the pull is cancelled")
    assert served.client.get("/v1/images") == []
    assert served.world.leftovers() == []


def test_api_operation_is_followed_and_cancelled_by_another_caller(served):
    served.world.images.gate.close()
    answer = served.client.call("POST", "/v1/images/pull", None, {"reference": "example.com/app:1"})
    operation = path_of("operations", answer["operation"]["id"])
    following = served.client.start("GET", f"{operation}/events")

    served.client.call("POST", f"{operation}/cancel")

    with pytest.raises(BangerError) as caught:
        following.result()
    following.close()
    assert caught.value.kind is ErrorKind.CANCELLED


def test_api_reads_are_answered_while_pulls_run(served):
    served.world.images.gate.close()
    for number in range(10):
        served.client.call("POST", "/v1/images/pull", None, {"reference": f"example.com/app:{number}"})

    assert len(served.client.get("/v1/operations", {"state": ["running", "queued"]})) == 10
    assert served.client.get("/v1/images") == []
    assert served.client.get("/v1/vms") == []


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("GET", "/v1/images/nothing", None, ErrorKind.NOT_FOUND),
        ("GET", "/v1/nothing", None, ErrorKind.NOT_FOUND),
        ("PUT", "/v1/images", None, ErrorKind.USAGE),
        ("POST", "/v1/images/pull", {"reference": 5}, ErrorKind.USAGE),
        ("POST", "/v1/images/pull", {"referense": "x"}, ErrorKind.USAGE),
        ("POST", "/v1/images/pull", {"reference": "debain"}, ErrorKind.NOT_FOUND),
        ("POST", "/v1/images/pull", {"reference": ""}, ErrorKind.USAGE),
        ("POST", "/v1/kernels/pull", {"name": "nothing"}, ErrorKind.NOT_FOUND),
        ("POST", "/v1/vms", {"spec": {"image": "x", "memory": 1}}, ErrorKind.USAGE),
        ("POST", "/v1/vms", {"name": "Bad Name", "spec": {"image": "x"}}, ErrorKind.USAGE),
        ("GET", "/v1/operations/nothing", None, ErrorKind.NOT_FOUND),
    ],
)
def test_api_bad_request_gets_its_kind(served, method, path, body, kind):
    with pytest.raises(BangerError) as caught:
        served.client.call(method, path, None, body)
    assert caught.value.kind is kind
    assert caught.value.message


def test_api_body_that_is_no_json_or_too_long_is_refused(served):
    for body in (b"{", b" " * (2 << 20)):
        status, answer = _raw(served.world.layout.socket, b"POST", b"/v1/images/pull", body)
        assert status == 400
        assert json.loads(answer)["error"]["kind"] == "usage"


def _raw(path, method: bytes, target: bytes, body: bytes) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        head = method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body))
        with suppress(BrokenPipeError):
            connection.sendall(body)
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
    head, _, answer = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), answer


def test_api_vm_is_created_listed_filtered_and_deleted(served):
    spec = {"image": "example.com/app:1", "kernel": "debian-cloud", "labels": {"ci": "1"}}

    vm = served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": spec})

    assert (vm["state"], vm["image_name"], vm["kernel_name"]) == ("stopped", "example.com/app:1", "debian-cloud")
    assert [v["name"] for v in served.client.get("/v1/vms", {"label": "ci=1", "state": "stopped"})] == ["web"]
    assert served.client.get("/v1/vms", {"label": "ci=2"}) == []
    assert served.client.get(path_of("images", "example.com/app:1"))["used_by"] == ["web"]
    served.client.long("DELETE", path_of("vms", vm["id"][:5]))
    assert served.client.get("/v1/vms") == []


def test_api_list_shows_a_broken_object_with_its_reason(served):
    image = pull(served)
    served.world.layout.image_dir(image["id"]).joinpath("rootfs.ext4").unlink()

    (shown,) = served.client.get("/v1/images")

    assert "is missing" in shown["broken"]


def test_api_description_covers_every_route_and_its_bodies(served):
    document = served.client.get("/v1/openapi.json")

    for entry in ROUTES:
        path = entry.described.path.replace("{query:path}", "{query}")  # the converter is Starlette's own
        assert entry.described.method.lower() in document["paths"][path]
    assert set(document["components"]["schemas"]) >= {"Vm", "VmSpec", "Image", "Kernel", "Error"}
    spec = document["components"]["schemas"]["VmSpec"]
    assert spec["required"] == ["image"]
    assert set(spec["properties"]) == set(VmSpec.__dataclass_fields__)


def test_api_daemon_that_cannot_start_vms_still_tells_about_itself(served):
    def refuse():
        raise BangerError(ErrorKind.UNAVAILABLE, "VMs cannot be services of systemd here", cause="no bus")

    served._context.system.vmms.launcher.describe = refuse
    system = served.client.get("/v1/system")  # what `banger daemon stop` asks first
    assert system["pid"] > 0
    assert "no bus" in system["launcher"]["error"]


def test_api_shutdown_is_answered_before_it_begins(served):
    assert served.client.call("POST", "/v1/system/shutdown") == {"stopping": True}
    assert served.stopped.wait(WAIT_S)


def test_api_socket_is_private_and_replaced_when_stale(served):
    path = served.world.layout.socket
    assert path.stat().st_mode & 0o777 == 0o660
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_peer_of_another_user_is_turned_away(monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer.admit(ours) == os.getuid()
        monkeypatch.setattr(peer, "peer_credentials", lambda _connection: (1, 4711, 4711))
        assert peer.admit(ours) is None
        monkeypatch.setattr(peer, "peer_credentials", lambda _connection: (1, 0, 0))
        assert peer.admit(ours) == 0


def test_api_events_of_an_operation_that_has_ended_are_told_with_its_result(served):
    answer = served.client.call("POST", "/v1/images/pull", None, {"reference": "example.com/app:1"})
    path = path_of("operations", answer["operation"]["id"])
    eventually(lambda: served.client.get(path)["state"] == "succeeded", what="the pull is done")
    events = []

    result = served.client.long("GET", f"{path}/events", on_event=events.append)

    assert [event["kind"] for event in events if event][-1] == "finished"
    assert result["name"] == "example.com/app:1"


@pytest.mark.parametrize("tail", ["²", "-1", "1e3", "9" * 5000])
def test_api_number_of_lines_that_is_none_is_a_usage_error(served, tail):
    served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": {"image": "alpine"}})
    with pytest.raises(BangerError) as caught:
        served.client.get("/v1/vms/web/logs", {"tail": tail})
    assert caught.value.kind is ErrorKind.USAGE


def test_api_body_that_is_nested_without_end_is_a_usage_error(served):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served.world.layout.socket))
        body = b"[" * 200_000
        raw.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        raw.settimeout(WAIT_S)
        assert b" 400 " in raw.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        encode(FrameType.STDIN, b"first"),
        b"\xff" * 100,
        b"c\xff\xff\xff\xff",
        encode(FrameType.SIGNAL, b"INT") * 2000,
        encode(FrameType.CONFIG, b"[" * 200_000),
        encode(FrameType.CONFIG, b"NaN"),
    ],
    ids=["nothing", "less than a frame", "no CONFIG", "no frame", "giant frame", "too many", "deep JSON", "no object"],
)
def test_api_stream_that_breaks_the_rules_ends_with_a_usage_error(served, body):
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(WAIT_S)
        raw.connect(str(served.world.layout.socket))
        head = b"POST /v1/vms/run HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        raw.sendall(head % len(body) + body)
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'{"error":{"kind":"usage"' in answer
    assert served.client.get("/v1/vms") == []


@pytest.mark.parametrize(
    ("text", "is_refused"), [("a\0b", True), ("\\\0", True), ("\\u0000", False), ("\\\\u0000", False)]
)
def test_api_body_with_a_nul_anywhere_is_a_usage_error(served, text, is_refused):
    with pytest.raises(BangerError) as caught:
        served.client.long("POST", "/v1/vms", None, {"name": "web", "spec": {"image": "x", "labels": {"note": [text]}}})
    assert ("NUL" in caught.value.message) == is_refused
    assert caught.value.kind is ErrorKind.USAGE


def test_peer_that_did_not_come_by_the_unix_socket_is_turned_away():
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right, socket.create_server(("127.0.0.1", 0)) as listener:
        assert peer.admit(left) == os.getuid()
        with socket.create_connection(listener.getsockname()) as client:
            assert peer.admit(client) is None
