"""A stand-in for the daemon: a Unix socket that answers what a test scripted, frame streams included."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from banger.api.app import ROUTES
from banger.api.openapi import parameters_of
from banger.core.codec import from_plain, to_plain
from banger.core.frames import MEDIA_TYPE, FrameReader, FrameType, encode, encode_json
from banger.core.wire.exec import ExecConfig, RunConfig


@dataclass
class Call:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any = None
    config: Any = None
    frames: list[tuple[FrameType, bytes]] = field(default_factory=list)

    @property
    def stdin(self) -> bytes:
        """What came as standard input."""
        return b"".join(payload for kind, payload in self.frames if kind is FrameType.STDIN)


class FrameSession:
    """The daemon's side of a frame stream, for a script to hold a conversation with."""

    def __init__(self, handler: BaseHTTPRequestHandler, call: Call) -> None:
        self._handler = handler
        self._sending = threading.Lock()  # a script may talk and listen in threads of its own
        self._reader = FrameReader()
        self._ready: list[tuple[FrameType, bytes]] = []
        self.call = call
        self.config = call.config = _config(call.path, json.loads(self._demand(FrameType.CONFIG)))

    def receive(self) -> tuple[FrameType, bytes] | None:
        """The next frame; None when the caller ended its body or hung up."""
        while not self._ready:
            data = _read_chunk(self._handler)
            if not data:
                return None
            self._ready += list(self._reader.feed(data))
        frame = self._ready.pop(0)
        self.call.frames.append(frame)
        if frame[0] is FrameType.STDIN:
            self.send_json(FrameType.ACK, len(frame[1]))
        return frame

    def _demand(self, wanted: FrameType) -> bytes:
        frame = self.receive()
        assert frame is not None, f"hung up before {wanted.name}"
        assert frame[0] is wanted, f"{frame[0].name} instead of {wanted.name}"
        return frame[1]

    def read_stdin(self) -> bytes:
        """Everything up to STDIN_EOF (or a hang-up)."""
        data = b""
        while (frame := self.receive()) is not None and frame[0] is not FrameType.STDIN_EOF:
            data += frame[1] if frame[0] is FrameType.STDIN else b""
        return data

    def wait_for(self, kind: FrameType) -> bytes | None:
        """The payload of the next frame of ``kind``, others skipped; None after a hang-up."""
        while (frame := self.receive()) is not None:
            if frame[0] is kind:
                return frame[1]
        return None

    def send(self, kind: FrameType, payload: bytes = b"") -> None:
        with self._sending:
            _write_chunk(self._handler, encode(kind, payload))

    def send_json(self, kind: FrameType, value: Any) -> None:
        with self._sending:
            _write_chunk(self._handler, encode_json(kind, value))

    def started(self, name: str = "brave-otter") -> None:
        self.send_json(FrameType.STARTED, {"vm_id": "0123456789ab", "vm_name": name})

    def exit(self, code: int = 0, signal: str = "") -> None:
        self.send_json(FrameType.EXIT, {"code": code, "signal": signal})

    def fail(self, **error: str) -> None:
        self.send_json(FrameType.EXIT, {"error": error})


@dataclass
class Answer:
    """What one route answers: JSON, a list of NDJSON lines, raw bytes, or a conversation in frames."""

    status: int = 200
    value: Any = None
    lines: Sequence[Mapping[str, Any]] | None = None
    data: bytes | None = None
    talk: Callable[[FrameSession], None] | None = None
    cut: bool = False
    held: threading.Event | None = None


class FakeApi:
    """Use as a context manager; :meth:`on` scripts routes, :attr:`calls` tells what was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Call] = []
        self.hung_up = threading.Event()
        self._answers: dict[tuple[str, str], Answer] = {}
        self._turns: dict[tuple[str, str], list[Answer]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._server = _Server(str(path), _Handler)
        self._server.api = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FakeApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for answer in self._answers.values():
            if answer.held is not None:
                answer.held.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        assert not (refused := [call for call in self.calls if not is_taken(call)]), f"a daemon refuses {refused}"

    def on(self, method: str, path: str, value: Any = None, **facts: Any) -> None:
        """Answer ``method path`` so from now on."""
        self._answers[method, path] = Answer(value=value, **facts)

    def in_turn(self, method: str, path: str, *answers: Answer) -> None:
        """Answer ``method path`` by one after another, and by the last one from then on."""
        self._turns[method, path] = list(answers)

    def fail(self, method: str, path: str, status: int, **error: str) -> None:
        """Answer with an error."""
        self.on(method, path, {"error": error}, status=status)

    def long(self, method: str, path: str, result: Any, *events: Mapping[str, Any]) -> None:
        """Answer with events and a result."""
        self.on(method, path, lines=[*({"event": event} for event in events), {"result": result}])

    def answer_to(self, call: Call) -> Answer:
        missing = {"error": {"kind": "not_found", "message": f'no route "{call.method} {call.path}"'}}
        if turns := self._turns.get((call.method, call.path)):
            return turns.pop(0) if len(turns) > 1 else turns[0]
        return self._answers.get((call.method, call.path)) or Answer(404, missing)

    def asked(self, method: str, path: str) -> list[Call]:
        """The calls of one route."""
        return [call for call in self.calls if (call.method, call.path) == (method, path)]


def is_taken(call: Call) -> bool:
    """A route takes the parameters of this call; what no route is of may have any."""
    for entry in ROUTES:
        pattern = re.sub(r"\{query(:path)?\}", lambda found: ".+" if found[1] else "[^/]+", entry.described.path)
        if call.method == entry.described.method and re.fullmatch(pattern, call.path):
            return set(call.query) <= set(parameters_of(entry.described))
    return True


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = False
    api: FakeApi

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no error of the server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_request(self) -> None:
        url = urlsplit(self.path)
        call = Call(self.command, unquote(url.path), parse_qs(url.query))
        self.server.api.calls.append(call)
        self.close_connection = True
        if self.headers.get("Content-Length"):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            call.body = json.loads(body) if body else None
        answer = self.server.api.answer_to(call)
        try:
            self._answer(answer, call)
        except (BrokenPipeError, ConnectionResetError):
            self.server.api.hung_up.set()

    do_GET = do_POST = do_DELETE = do_request  # noqa: N815  # the base class looks for these

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, answer: Answer, call: Call) -> None:
        if answer.talk is not None:
            session = FrameSession(self, call)
            self._head(answer.status, MEDIA_TYPE)
            answer.talk(session)
            self._end(answer)
        elif answer.lines is not None:
            self._head(answer.status, "application/x-ndjson")
            for line in answer.lines:
                _write_chunk(self, json.dumps(line).encode() + b"\n")
            self._hold(answer)
            self._end(answer)
        else:
            data = answer.data if answer.data is not None else json.dumps(answer.value).encode()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def _hold(self, answer: Answer) -> None:
        """Say nothing until the test lets go or the caller hangs up."""
        if answer.held is None:
            return
        self.connection.settimeout(0.02)
        while not answer.held.is_set():
            with suppress(TimeoutError):
                if not self.connection.recv(1):
                    self.server.api.hung_up.set()
                    return
        self.connection.settimeout(None)

    def _head(self, status: int, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _end(self, answer: Answer) -> None:
        if answer.cut:
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(b"0\r\n\r\n")


def _read_chunk(handler: BaseHTTPRequestHandler) -> bytes:
    """One chunk of the request's body; empty at its end."""
    try:
        size = int(handler.rfile.readline().strip() or b"0", 16)
        data = handler.rfile.read(size)
        handler.rfile.readline()
    except (OSError, ValueError):
        return b""
    return data if len(data) == size else b""


def _write_chunk(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
    handler.wfile.flush()


def as_read(cls: type[Any], plain: Any) -> Any:
    """A request as the daemon reads it: checked, and with what is left out."""
    return to_plain(from_plain(cls, plain))


def _config(path: str, plain: Any) -> Any:
    cls = {"run": RunConfig, "exec": ExecConfig}.get(path.rpartition("/")[2])
    return as_read(cls, plain) if cls else plain


def vm_json(name: str = "web", **facts: Any) -> dict[str, Any]:
    """A VM as the daemon shows it."""
    spec = {
        "image": "debian", "kernel": "", "cpus": 2, "memory_mib": 512, "disk_mib": 10240, "init": "auto", "env": [],
        "user": "", "workdir": "", "ports": [], "network": "user", "machine": "", "ephemeral": False, "labels": {},
        **facts.pop("spec", {}),
    }  # fmt: skip
    return {
        "id": "0a1b2c3d4e5f", "name": name, "spec": spec, "state": "running", "created_at": "2026-11-23T12:00:00.000Z",
        "owner_uid": 0, "image_id": "aaaaaaaaaaaa", "kernel_id": "bbbbbbbbbbbb", "reason": "", "exit_reason": "",
        "started_at": "2026-11-23T12:00:05.000Z", "stopped_at": None, "address": "10.0.2.15", "ports": [],
        "vmm": "qemu", "accelerator": "tcg", "pid": 4242, "timings": [], "image_name": "debian",
        "kernel_name": "debian-cloud", "broken": "", **facts,
    }  # fmt: skip


def image_json(name: str = "debian", **facts: Any) -> dict[str, Any]:
    """An image as the daemon shows it."""
    return {
        "id": "aaaaaaaaaaaa", "name": name, "source": "docker.io/library/debian:12", "digest": "sha256:" + "a" * 64,
        "platform": "linux/amd64", "size_bytes": 2 << 30, "disk_bytes": 120 << 20, "owner_uid": 0, "managed": True,
        "created_at": "2026-11-20T12:00:00.000Z", "used_by": ["web"], "broken": "",
        "config": {"env": ["A=b"], "entrypoint": [], "cmd": ["bash"], "user": "", "workdir": "", "labels": {}}, **facts,
    }  # fmt: skip


def kernel_json(name: str = "debian-cloud", **facts: Any) -> dict[str, Any]:
    """A kernel as the daemon shows it."""
    return {
        "id": "bbbbbbbbbbbb", "name": name, "version": "6.1.0", "source": "apt:linux-image-cloud-amd64",
        "digest": "sha256:" + "b" * 64, "platform": "linux/amd64", "format": "bzimage", "size_bytes": 90 << 20,
        "created_at": "2026-11-20T12:00:00.000Z", "owner_uid": 0, "has_modules": True, "has_initrd": False,
        "cmdline": "", "used_by": [], "broken": "", **facts,
    }  # fmt: skip


def event(kind: str, step: str = "", **facts: Any) -> dict[str, Any]:
    """An operation event in its JSON form."""
    return {
        "kind": kind, "operation_id": "0p0p0p0p0p0p", "at": "2026-11-23T12:00:00.000Z", "step": step, "done": 0,
        "total": None, "unit": "", "elapsed_s": None, "message": "", **facts,
    }  # fmt: skip


def talk_of(frames: Iterator[Any]) -> Callable[[FrameSession], None]:
    """A conversation that only sends."""

    def talk(session: FrameSession) -> None:
        for kind, payload in frames:
            session.send(kind, payload)

    return talk
