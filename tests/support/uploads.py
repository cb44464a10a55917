"""A registry on loopback that takes pushes, and misbehaves while it does, on command.

    with upload_registry() as registry:
        registry.on("PUT", "/blobs/uploads/", cut(after=1000))     # the next such request gets this answer
        push(…)
        assert registry.blobs == {…}

It keeps what it was given in memory. Pulling works as far as verifying needs it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.faulty_registry import registry_error
from tests.support.registry import digest_of
from tests.support.scripted_server import ScriptedHandler, ScriptedServer, serving

_PIECE = 65536


class Upload(ScriptedHandler):
    """One request under way."""

    server: ScriptedServer

    def serve(self) -> None:
        registry = self.server.registry
        registry.requests.append((self.command, self.path, dict(self.headers)))
        with suppress(ConnectionError):
            fault = registry.next_fault(self.command, self.path)
            if fault is not None:
                fault(self)
            elif self.path.startswith("/token"):
                self.send(200, {}, json.dumps({"token": registry.new_token(self)}).encode())
            elif not registry.admits(self.headers.get("Authorization", "")):
                self.send(401, {"WWW-Authenticate": registry.challenge(self)}, registry_error("UNAUTHORIZED"))
            else:
                self.honest()

    def honest(self) -> None:
        """What a good registry does."""
        registry = self.server.registry
        path = urlsplit(self.path)
        body = self.body()
        if self.command == "HEAD":
            self.send(200 if path.path.rpartition("/")[2] in registry.blobs else 404, {}, b"")
        elif self.command == "POST":
            location = registry.location or f"/v2/{path.path.split('/')[2]}/blobs/uploads/one?state=x"
            self.send(202, {"Location": location}, b"")
        elif self.command == "PUT" and "/manifests/" in path.path:
            registry.manifests[path.path.rpartition("/")[2]] = body
            self.send(201, {"Docker-Content-Digest": digest_of(body)}, b"")
        elif self.command == "PUT":
            (wanted,) = parse_qs(path.query)["digest"]
            good = digest_of(body) == wanted
            if good:
                registry.blobs[wanted] = body
            self.send(201 if good else 400, {}, b"" if good else registry_error("DIGEST_INVALID"))
        else:
            self.send(404, {}, b"")

    def body(self, most: int = 1 << 30) -> bytes:
        """Read up to ``most`` bytes of the request's body."""
        left = min(int(self.headers.get("Content-Length", 0)), most)
        parts = []
        while left and (part := self.rfile.read(min(left, _PIECE))):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


Fault = Callable[[Upload], None]


@dataclass
class UploadRegistry:
    """What was pushed, what was asked, and what to do wrong."""

    host: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    #: Where uploads are sent; empty for a path of this registry.
    location: str = ""
    #: ``user:secret`` that gets a token for pushing; empty lets everybody in without one.
    login: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    tokens: set[str] = field(default_factory=set)
    _faults: list[tuple[str, str, Fault]] = field(default_factory=list)

    def reference(self, name: str) -> str:
        """The full reference of ``name`` here."""
        return f"{self.host}/{name}"

    def on(self, method: str, part: str, *faults: Fault) -> None:
        """Give the next such requests these answers, one each."""
        self._faults += [(method, part, fault) for fault in faults]

    def asked(self, method: str, part: str = "") -> list[dict[str, str]]:
        """Headers of the requests so far."""
        return [headers for asked, path, headers in list(self.requests) if asked == method and part in path]

    # -- called by the exchange ------------------------------------------------------------------------

    def next_fault(self, method: str, path: str) -> Fault | None:
        for i, (wanted, part, fault) in enumerate(self._faults):
            if wanted == method and part in path:
                del self._faults[i]
                return fault
        return None

    def challenge(self, exchange: Upload) -> str:
        repository = exchange.path.split("/")[2]
        return f'Bearer realm="http://{self.host}/token",service="s",scope="repository:{repository}:pull,push"'

    def new_token(self, exchange: Upload) -> str:
        sent = exchange.headers.get("Authorization", "").removeprefix("Basic ")
        scope = parse_qs(urlsplit(exchange.path).query).get("scope", [""])[0]
        good = base64.b64decode(sent).decode() == self.login and scope.endswith(":pull,push")
        token = f"t{len(self.requests)}"
        if good:
            self.tokens.add(token)
        return token

    def admits(self, authorization: str) -> bool:
        return not self.login or authorization.removeprefix("Bearer ") in self.tokens


@contextmanager
def upload_registry() -> Iterator[UploadRegistry]:
    """Run one on a free port of loopback."""
    with serving(Upload, UploadRegistry) as registry:
        yield registry


# -- faults ------------------------------------------------------------------------------------------------


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Fault:
    """Read the request and answer with a status."""

    def fault(exchange: Upload) -> None:
        exchange.body()
        exchange.send(code, headers or {}, body)

    return fault


def cut(after: int) -> Fault:
    """Read some of the body and hang up."""

    def fault(exchange: Upload) -> None:
        exchange.body(after)
        exchange.hang_up()

    return fault


def stalled(after: int) -> Fault:
    """Read some of the body, then nothing more until the client or the test is gone."""

    def fault(exchange: Upload) -> None:
        exchange.close_connection = True
        exchange.body(after)
        registry = exchange.server.registry
        registry.stalled.set()
        registry.stopping.wait(30)

    return fault
