"""What a caller of the client gets for each thing that the daemon, or its absence, may answer."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from banger.client import Client, path_of
from banger.core.errors import BangerError, ErrorKind
from tests.support.fake_api import FakeApi, event, vm_json
from tests.support.waiting import eventually

pytest_plugins = ("tests.support.cli_fixtures",)


@pytest.fixture
def client(api: FakeApi) -> Client:
    return Client(api.path)


def kind_of(call: Any, *arguments: Any, **named: Any) -> tuple[ErrorKind, str]:
    with pytest.raises(BangerError) as raised:
        call(*arguments, **named)
    return raised.value.kind, raised.value.hint


def test_get_returns_the_decoded_answer(api: FakeApi, client: Client) -> None:
    api.on("GET", "/v1/vms", [vm_json("web")])
    assert [vm["name"] for vm in client.get("/v1/vms")] == ["web"]


def test_query_repeats_lists_and_leaves_out_nothings(api: FakeApi, client: Client) -> None:
    api.on("GET", "/v1/things", [])
    client.get("/v1/things", {"label": ["a=b", "c=d e"], "state": None, "force": True, "x": ""})
    assert api.calls[0].query == {"label": ["a=b", "c=d e"], "force": ["true"]}


def test_name_with_slash_and_colon_is_one_part_of_the_path(api: FakeApi, client: Client) -> None:
    name = "ghcr.io/org/app:1 ü?"
    api.on("GET", f"/v1/images/{name}", {"ok": True})
    assert "/" not in path_of("images", name).removeprefix("/v1/images/")
    assert client.get(path_of("images", name)) == {"ok": True}


def test_error_answer_is_raised_with_all_its_parts(api: FakeApi, client: Client) -> None:
    api.fail("GET", "/v1/vms/x", 404, kind="not_found", message='VM "x" not found', hint="banger vm list", cause="c")
    with pytest.raises(BangerError) as raised:
        client.get("/v1/vms/x")
    error = raised.value
    assert (error.kind, error.message, error.hint, error.cause) == (
        ErrorKind.NOT_FOUND, 'VM "x" not found', "banger vm list", "c",
    )  # fmt: skip


def test_error_answer_that_is_not_ours_is_internal(api: FakeApi, client: Client) -> None:
    api.on("GET", "/v1/vms", status=500, data=b"<h1>oops</h1>")
    with pytest.raises(BangerError, match="status 500") as raised:
        client.get("/v1/vms")
    assert (raised.value.kind, raised.value.cause) == (ErrorKind.INTERNAL, "<h1>oops</h1>")


def test_absent_socket_is_unavailable_and_says_how_to_start(home: Path) -> None:
    assert kind_of(Client(home / "none.sock").get, "/v1/vms") == (ErrorKind.UNAVAILABLE, "banger daemon start")


def test_socket_that_nobody_serves_is_unavailable(api: FakeApi, home: Path) -> None:
    stale = home / "stale.sock"
    os.link(api.path, stale)
    api._server.socket.close()
    assert kind_of(Client(stale).get, "/v1/vms")[0] is ErrorKind.UNAVAILABLE


def test_socket_path_too_long_is_a_usage_error() -> None:
    kind, hint = kind_of(Client(Path("/tmp/" + "x" * 200)).get, "/v1/vms")
    assert kind is ErrorKind.USAGE
    assert "BANGER_HOME" in hint


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to be")
def test_socket_of_somebody_else_is_denied(api: FakeApi, home: Path) -> None:
    home.chmod(0o755)
    api.path.parent.chmod(0o755)
    api.path.chmod(0o600)
    os.seteuid(65534)
    try:
        kind, _ = kind_of(Client(api.path).get, "/v1/vms")
    finally:
        os.seteuid(0)
    assert kind is ErrorKind.DENIED


def test_daemon_is_started_once_if_none_answers(home: Path) -> None:
    running: list[FakeApi] = []

    def start() -> None:
        running.append(FakeApi(home / "late.sock").__enter__())
        running[0].on("GET", "/v1/vms", [])

    client = Client(home / "late.sock", start_daemon=start)
    try:
        assert client.get("/v1/vms") == client.get("/v1/vms") == []
        assert len(running) == 1
    finally:
        running[0].__exit__()


def test_silent_daemon_is_a_timeout(api: FakeApi) -> None:
    api.on("GET", "/v1/vms", lines=[], held=threading.Event())
    assert kind_of(Client(api.path, timeout_s=0.05).get, "/v1/vms")[0] is ErrorKind.TIMEOUT


def test_long_request_tells_events_and_returns_the_result(api: FakeApi, client: Client) -> None:
    api.long("POST", "/v1/vms/web/start", vm_json("web"), event("started"), event("step_started", "boot"))
    heard: list[Any] = []
    result = client.long("POST", "/v1/vms/web/start", on_event=heard.append)
    assert result["name"] == "web"
    assert [message["kind"] for message in heard if message] == ["started", "step_started"]
    assert api.calls[0].query == {"wait": ["true"]}


def test_long_request_that_fails_raises_the_operations_error(api: FakeApi, client: Client) -> None:
    api.on("POST", "/v1/x", lines=[{"event": event("started")}, {"error": {"kind": "exhausted", "message": "no room"}}])
    assert kind_of(client.long, "POST", "/v1/x")[0] is ErrorKind.EXHAUSTED


def test_long_request_that_is_refused_raises_the_answer(api: FakeApi, client: Client) -> None:
    api.fail("POST", "/v1/x", 409, kind="conflict", message="busy")
    assert kind_of(client.long, "POST", "/v1/x")[0] is ErrorKind.CONFLICT


@pytest.mark.parametrize("cut", [True, False])
def test_long_request_without_an_end_has_an_unknown_outcome(api: FakeApi, client: Client, cut: bool) -> None:
    api.on("POST", "/v1/x", lines=[{"event": event("started")}], cut=cut)
    assert kind_of(client.long, "POST", "/v1/x") == (ErrorKind.UNKNOWN_OUTCOME, "banger op list")


def test_reading_request_that_is_cut_short_is_only_unavailable(api: FakeApi, client: Client) -> None:
    api.on("GET", "/v1/x", lines=[{"event": event("started")}], cut=True)
    assert kind_of(client.long, "GET", "/v1/x")[0] is ErrorKind.UNAVAILABLE


def test_long_request_past_its_time_hangs_up(api: FakeApi, client: Client) -> None:
    api.on("POST", "/v1/x", lines=[{"event": event("started")}], held=threading.Event())
    assert kind_of(client.long, "POST", "/v1/x", timeout_s=0.05)[0] is ErrorKind.TIMEOUT
    assert api.hung_up.wait(5)


def test_interrupt_during_a_long_request_hangs_up(api: FakeApi, client: Client) -> None:
    api.on("POST", "/v1/x", lines=[{"event": event("started")}], held=threading.Event())
    with pytest.raises(KeyboardInterrupt):
        client.long("POST", "/v1/x", on_event=lambda _: signal.raise_signal(signal.SIGINT))
    assert api.hung_up.wait(5)


def test_stream_gives_pieces_as_they_come(api: FakeApi, client: Client) -> None:
    api.on("GET", "/v1/vms/web/logs", data=b"one\ntwo\n")
    assert b"".join(client.stream("/v1/vms/web/logs")) == b"one\ntwo\n"


def test_stream_that_is_refused_raises_the_answer(api: FakeApi, client: Client) -> None:
    api.fail("GET", "/v1/vms/web/logs", 404, kind="not_found", message="no")
    assert kind_of(lambda: list(client.stream("/v1/vms/web/logs")))[0] is ErrorKind.NOT_FOUND


def test_stream_that_is_left_hangs_up(api: FakeApi, client: Client) -> None:
    api.on("GET", "/v1/x", lines=[{"a": 1}], held=threading.Event())
    pieces = client.stream("/v1/x")
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # it is a generator
    eventually(api.hung_up.is_set)
