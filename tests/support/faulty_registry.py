"""A registry on loopback that misbehaves on command.

    with faulty_registry() as registry:
        registry.serve("test/app:1", image)                 # honest content first
        registry.on("/blobs/", truncated(after=100))        # the next such request gets this answer, later ones are honest
        registry.always("/blobs/", without_ranges())        # every such request gets this answer

Everything that was asked is in ``registry.requests``.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.registry import BuiltImage, digest_of
from tests.support.scripted_server import ScriptedHandler, ScriptedServer, serving

_LONGEST_STALL_S = 30.0


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        """The ``Authorization`` header, or empty."""
        return self.headers.get("authorization", "")


@dataclass(frozen=True)
class Content:
    """What an honest registry would send."""

    body: bytes
    media_type: str


class Exchange(ScriptedHandler):
    """One request under way, with what a fault needs to answer it."""

    server: ScriptedServer
    content: Content | None = None

    def serve(self) -> None:
        """Record, authenticate, then the next fault or the truth."""
        registry = self.server.registry
        headers = {key.lower(): value for key, value in self.headers.items()}
        registry.requests.append(Asked(self.command, self.path, headers))
        self.content = registry.find(self.path)
        with suppress(ConnectionError):
            fault = registry.next_fault(self.path)
            if fault is not None:
                fault(self)
            elif self.path.startswith("/token"):
                registry.issue_token(self)
            elif registry.token_users and not registry.is_authorized(self.path, headers.get("authorization", "")):
                self.send(401, {"WWW-Authenticate": registry.challenge(self.path)}, registry_error("UNAUTHORIZED"))
            else:
                self.honest()

    def honest(self) -> None:
        """Answer as a good registry does, ranges included."""
        if self.content is None:
            self.send(404, {}, registry_error("MANIFEST_UNKNOWN", "manifest unknown"))
            return
        body, start = self.content.body, self.range_start()
        headers = {"Content-Type": self.content.media_type}
        if start is None:
            self.send(200, headers, body)
        elif start >= len(body):
            self.send(416, {}, b"")
        else:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send(206, headers, body[start:])

    def wait_for_the_end(self) -> None:
        """Say nothing more until the registry is shut down or the client has gone."""
        self.close_connection = True
        self.connection.settimeout(0.05)
        registry = self.server.registry
        for _ in range(int(_LONGEST_STALL_S / 0.05)):
            try:
                gone = not self.connection.recv(1)
            except TimeoutError:
                gone = False
            except OSError:
                gone = True
            if gone or registry.stopping.is_set():
                registry.abandoned.set()
                return

    def drip(self, data: bytes, every_s: float, piece: int) -> None:
        """Send ``data`` bit by bit, as long as somebody takes it."""
        self.close_connection = True
        registry = self.server.registry
        for at in range(0, len(data), piece):
            self.wfile.write(data[at : at + piece])
            if registry.stopping.wait(every_s):
                return

    def range_start(self) -> int | None:
        """The first byte wanted, if a range is."""
        text = self.headers.get("Range", "")
        return int(text.removeprefix("bytes=").rstrip("-")) if text else None


Fault = Callable[[Exchange], None]


@dataclass
class FaultyRegistry:
    """The script and the record of one server; made by :func:`faulty_registry`."""

    host: str
    contents: dict[str, Content] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    #: Set when a client gave up on a request that was left without an answer.
    abandoned: threading.Event = field(default_factory=threading.Event)
    #: User to password; if any are set, reading needs a token. The empty user stands for anonymous readers.
    token_users: dict[str, str] = field(default_factory=dict)
    realm: str = ""
    valid_tokens: set[str] = field(default_factory=set)
    _once: list[tuple[str, Fault]] = field(default_factory=list)
    _always: list[tuple[str, Fault]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reference(self, name: str) -> str:
        """The full reference of ``name`` here."""
        return f"{self.host}/{name}"

    def serve(self, name: str, image: BuiltImage) -> None:
        """Hold an image as ``repository:tag``, and by digest."""
        repository, _, tag = name.partition(":")
        for digest, blob in image.blobs.items():
            self.serve_blob(repository, blob, digest)
        for target in (tag or "latest", image.digest):
            self.serve_manifest(f"{repository}:{target}", image.manifest, image.media_type)

    def serve_manifest(self, name: str, body: bytes, media_type: str) -> None:
        """Hold any bytes as a manifest; ``name`` is ``repository:tag`` or ``repository:sha256:…``."""
        repository, _, target = name.partition(":")
        self.contents[f"/v2/{repository}/manifests/{target}"] = Content(body, media_type)

    def serve_blob(self, repository: str, body: bytes, digest: str = "") -> None:
        """Hold a blob, under a digest that need not be its own."""
        path = f"/v2/{repository}/blobs/{digest or digest_of(body)}"
        self.contents[path] = Content(body, "application/octet-stream")

    def on(self, part: str, *faults: Fault) -> None:
        """Give the next requests whose path contains ``part`` these answers, one each."""
        with self._lock:
            self._once += [(part, fault) for fault in faults]

    def always(self, part: str, fault: Fault) -> None:
        """Give every request whose path contains ``part`` this answer."""
        with self._lock:
            self._always.append((part, fault))

    def only(self, part: str, fault: Fault) -> None:
        """As :meth:`always`, in place of all that was asked for before."""
        with self._lock:
            self._once.clear()
            self._always[:] = [(part, fault)]

    def asked(self, part: str) -> list[Asked]:
        """The requests so far whose path contains ``part``."""
        return [asked for asked in list(self.requests) if part in asked.path]

    # -- called by the exchange ------------------------------------------------------------------------

    def find(self, path: str) -> Content | None:
        """The honest content of a path."""
        return self.contents.get(urlsplit(path).path)

    def next_fault(self, path: str) -> Fault | None:
        """The scripted answer for a request, if there is one."""
        with self._lock:
            for i, (part, fault) in enumerate(self._once):
                if part in path:
                    del self._once[i]
                    return fault
            return next((fault for part, fault in self._always if part in path), None)

    def challenge(self, path: str) -> str:
        """The ``WWW-Authenticate`` value for a path."""
        repository = path.removeprefix("/v2/").partition("/manifests/")[0].partition("/blobs/")[0]
        realm = self.realm or f"http://{self.host}/token"
        return f'Bearer realm="{realm}",service="faulty",scope="repository:{repository}:pull"'

    def issue_token(self, exchange: Exchange) -> None:
        """The token service: one fresh token per question."""
        fields = parse_qs(urlsplit(exchange.path).query)
        scope = fields.get("scope", [""])[0]
        user, password = _basic_login(exchange.headers.get("Authorization", ""))
        if self.token_users.get(user) != password:
            exchange.send(401, {}, registry_error("UNAUTHORIZED", "incorrect username or password"))
            return
        token = f"t{len(self.requests)}.{base64.urlsafe_b64encode(scope.encode()).decode()}"
        self.valid_tokens.add(token)
        exchange.send(200, {"Content-Type": "application/json"}, json.dumps({"token": token}).encode())

    def is_authorized(self, path: str, authorization: str) -> bool:
        """True for a token that was issued, has not been withdrawn, and is for this path's repository."""
        token = authorization.removeprefix("Bearer ")
        scope = base64.urlsafe_b64decode(token.partition(".")[2] or b"").decode(errors="replace")
        return token in self.valid_tokens and f"/v2/{scope.removeprefix('repository:').removesuffix(':pull')}/" in path


@contextmanager
def faulty_registry() -> Iterator[FaultyRegistry]:
    """Run one on a free port of loopback."""
    with serving(Exchange, FaultyRegistry) as registry:
        yield registry


# -- faults ----------------------------------------------------------------------------------------------


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Answer with a status."""
    return lambda exchange: exchange.send(code, headers or {}, body)


def truncated(after: int) -> Fault:
    """Announce everything, send ``after`` bytes, hang up."""

    def fault(exchange: Exchange) -> None:
        body, start = _honest_body(exchange)
        exchange.begin(*_head(exchange, start, len(body)))
        exchange.wfile.write(body[:after])
        exchange.hang_up()

    return fault


def stalled(after: int) -> Fault:
    """Announce everything, send ``after`` bytes, then nothing more while the connection stays."""

    def fault(exchange: Exchange) -> None:
        body, start = _honest_body(exchange)
        exchange.begin(*_head(exchange, start, len(body)))
        exchange.wfile.write(body[:after])
        exchange.wfile.flush()
        exchange.wait_for_the_end()

    return fault


def dripping(every_s: float, piece: int = 1) -> Fault:
    """Announce everything, and send ``piece`` bytes of it every ``every_s`` seconds."""

    def fault(exchange: Exchange) -> None:
        body, start = _honest_body(exchange)
        exchange.begin(*_head(exchange, start, len(body)))
        exchange.drip(body, every_s, piece)

    return fault


def refusing_without_end(code: int) -> Fault:
    """Refuse with an explanation of which only the beginning comes."""

    def fault(exchange: Exchange) -> None:
        exchange.begin(code, {"Content-Type": "application/json", "Content-Length": "1000"})
        exchange.wfile.write(b'{"errors": [')
        exchange.wfile.flush()
        exchange.wait_for_the_end()

    return fault


def dripping_head(every_s: float) -> Fault:
    """Answer with a header that has no end, a byte every ``every_s`` seconds."""
    return lambda exchange: exchange.drip(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 10_000, every_s, 1)


def gated(gate: threading.Event) -> Fault:
    """Answer honestly, but only once ``gate`` is set."""

    def fault(exchange: Exchange) -> None:
        assert gate.wait(_LONGEST_STALL_S)
        exchange.honest()

    return fault


def silent() -> Fault:
    """Take the request and never answer."""
    return Exchange.wait_for_the_end


def disconnecting() -> Fault:
    """Hang up without an answer."""
    return Exchange.hang_up


def corrupted() -> Fault:
    """Send the right number of wrong bytes."""

    def fault(exchange: Exchange) -> None:
        body, start = _honest_body(exchange)
        status_code, headers = _head(exchange, start, len(body))
        exchange.send(status_code, headers, bytes(byte ^ 0xFF for byte in body))

    return fault


def replaced(body: bytes, media_type: str = "application/octet-stream") -> Fault:
    """Send something else."""
    return status(200, {"Content-Type": media_type}, body)


def redirecting(url: str) -> Fault:
    """Send the client elsewhere."""
    return status(307, {"Location": url})


def without_ranges() -> Fault:
    """Ignore ``Range`` and send everything with status 200."""

    def fault(exchange: Exchange) -> None:
        assert exchange.content is not None
        exchange.send(200, {}, exchange.content.body)

    return fault


def wrong_range(shift: int) -> Fault:
    """Answer a range with status 206 but from another place."""

    def fault(exchange: Exchange) -> None:
        assert exchange.content is not None
        body, start = exchange.content.body, (exchange.range_start() or 0) + shift
        content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
        exchange.send(206, {"Content-Range": content_range}, body[start:])

    return fault


def announcing(length: str) -> Fault:
    """Send it all, but say this about its length, and hang up."""

    def fault(exchange: Exchange) -> None:
        body, start = _honest_body(exchange)
        code, headers = _head(exchange, start, len(body))
        exchange.begin(code, {**headers, "Content-Length": length, "Connection": "close"})
        exchange.wfile.write(body)
        exchange.hang_up()

    return fault


def chunked() -> Fault:
    """Send it in chunks, without a length."""

    def fault(exchange: Exchange) -> None:
        body, start = _honest_body(exchange)
        code, headers = _head(exchange, start, len(body))
        del headers["Content-Length"]
        exchange.begin(code, {**headers, "Transfer-Encoding": "chunked"})
        for i in range(0, len(body), 1000):
            piece = body[i : i + 1000]
            exchange.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        exchange.wfile.write(b"0\r\n\r\n")

    return fault


def endless() -> Fault:
    """Send the body and then zeros for ever, without a length."""

    def fault(exchange: Exchange) -> None:
        exchange.close_connection = True
        exchange.begin(200, {"Connection": "close"})
        exchange.wfile.write(exchange.content.body if exchange.content else b"")
        while not exchange.server.registry.stopping.is_set():
            exchange.wfile.write(bytes(65536))

    return fault


def registry_error(code: str, message: str = "") -> bytes:
    """The JSON body of a registry's error."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _honest_body(exchange: Exchange) -> tuple[bytes, int | None]:
    assert exchange.content is not None
    start = exchange.range_start()
    return exchange.content.body[start or 0 :], start


def _head(exchange: Exchange, start: int | None, length: int) -> tuple[int, dict[str, str]]:
    assert exchange.content is not None
    headers = {"Content-Type": exchange.content.media_type, "Content-Length": str(length)}
    if start is None:
        return 200, headers
    total = len(exchange.content.body)
    return 206, {**headers, "Content-Range": f"bytes {start}-{total - 1}/{total}"}


def _basic_login(authorization: str) -> tuple[str, str]:
    if not authorization.startswith("Basic "):
        return "", ""
    user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    return user, password
