"""Numbers, texts and names as nobody means them, in every field, parameter and path that the API has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from banger.actors.messages import DeleteVm
from banger.api.app import ROUTES
from banger.api.bodies import decode
from banger.core.codec import field_types, from_plain, is_optional, to_request, without_none
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.vms import CreateVmBody
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create
from tests.support.saved_vms import copied_guests
from tests.support.served import Served
from tests.support.unix_http import BASE_URL, unix_session

LONG = "x" * 5000
VALUES = (
    -1, 10**18, 10**400, -0.0, 1e308, math.nan, math.inf, True, None, "", "²", "٣", "9" * 5000, "-1", "\0", "\ud800",
    "a\nb", "\x1b[2J", "..", "/", f"/{LONG}", f"/{'d' * 300}/x", LONG, [], {}, [None], ["\0"], ["x"] * 5000, {"": ""}, {LONG: "a"},
)  # fmt: skip
NAMES = ("..", ".", "\0", "\n", "\x7f", "²", "é", "%", "?", "a/b", "x" * 300, LONG, "-", "\udcff", "x" * 60_000)
TEXTS = ("", "²", "-1", "9" * 5000, "1e3", "nan", "inf", "\0", "true", "maybe", "/", LONG, f"/{LONG}", "../..")
#: What would be done to this host rather than to a name.
ELSEWHERE = ("/v1/system/shutdown", "/v1/catalog/refresh")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    world = World(tmp_path / "home", FakeVmm())
    create(world, "web", stop_timeout_s=0.1)
    copied_guests(world)
    served = Served(world)
    yield served
    for vm in world.store.vms.all():
        world.do(DeleteVm(vm.id, vm.name, force=True))
    served.close()
    world.stop()


@pytest.fixture
def session(served: Served) -> Iterator[requests.Session]:
    with unix_session(served.world.layout.socket) as session:
        yield session


def told(session: requests.Session, method: str, target: str, body: Any = None) -> str:
    """Empty, or what is wrong with the answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        answer = session.request(method, f"{BASE_URL}{target}", data=data, timeout=10)
    except requests.exceptions.RequestException as error:
        return f"{method} {target[:80]} {str(body)[:80]}: {error}"
    text = answer.content
    if answer.status_code >= 500 or b'"internal"' in text or (answer.status_code >= 400 and len(text) > 20_000):
        return f"{method} {target[:80]} {str(body)[:80]}: {answer.status_code} {text[:300]!r}"
    if answer.status_code >= 400 and b'"error"' not in text and b"Invalid HTTP" not in text:
        return f"{method} {target[:80]}: {answer.status_code} without an error: {text[:200]!r}"
    return ""


def sample(cls: type[Any]) -> dict[str, Any]:
    """A request that says what has to be said."""
    return {
        one.name: sample(annotation) if is_dataclass(annotation := field_types(cls)[one.name]) else _PLAIN[annotation]
        for one in fields(cls)
        if one.default is MISSING and one.default_factory is MISSING
    }


_PLAIN = {str: "alpine", int: 1}


def odd_bodies(cls: type[Any]) -> Iterator[dict[str, Any]]:
    """``sample`` with one field at a time that is odd."""
    for name, annotation in field_types(cls).items():
        inner = without_none(annotation) if is_optional(annotation) else annotation
        for value in VALUES:
            yield {**sample(cls), name: value}
        if is_dataclass(inner):
            for odd in odd_bodies(inner):
                yield {**sample(cls), name: odd}


@pytest.mark.parametrize(
    "entry",
    [entry for entry in ROUTES if entry.described.body and entry.described.path not in ELSEWHERE],
    ids=lambda entry: entry.described.path,
)
def test_no_field_of_a_body_breaks_its_route(served: Served, session: requests.Session, entry: Any) -> None:
    described = entry.described
    target = described.path.replace("{query:path}", "alpine").replace("{query}", "web") + (
        "?wait=true" * described.long
    )
    wrong = [told(session, described.method, target, body) for body in odd_bodies(described.body)]
    assert not list(filter(None, wrong))


def test_no_name_and_no_parameter_breaks_a_route(served: Served, session: requests.Session) -> None:
    wrong = []
    routes = [entry.described for entry in ROUTES if entry.described.path not in ELSEWHERE]
    for described in sorted(routes, key=lambda one: one.method == "DELETE"):
        body = sample(described.body) if described.body else None
        base = described.path.replace(":path", "")
        if "{query}" in base:
            for name in NAMES:
                quoted = quote(name, safe="", errors="surrogatepass")
                wrong.append(told(session, described.method, base.replace("{query}", quoted), body))
        if "wait" in base or described.frames:
            continue
        # What is followed has no end.
        parameters = [name for name in described.query if name != "follow"] + ["timeout_s", "wait"] * described.long
        for parameter in (*parameters, "unknown"):
            for text in TEXTS:
                query = f"?{parameter}={quote(text)}"
                known = "alpine" if "/images/" in base else "default" if "/kernels/" in base else "web"
                wrong.append(told(session, described.method, base.replace("{query}", known) + query, body))
    assert not list(filter(None, wrong))


@pytest.mark.parametrize("cls", {entry.described.frames for entry in ROUTES} - {None}, ids=lambda cls: cls.__name__)
def test_no_field_of_a_streams_configuration_is_more_than_a_usage_error(cls: Any) -> None:
    for body in odd_bodies(cls):
        try:
            decode(json.dumps(body).encode(), cls)
        except BangerError as error:
            assert error.kind is ErrorKind.USAGE, body


def test_sample_is_understood() -> None:
    assert to_request(from_plain(CreateVmBody, sample(CreateVmBody))) == {"spec": {"image": "alpine"}}
