"""Requests that the API's own description calls possible, and such that it does not: none is an error of the server.

Half a minute by default; ``FUZZ_SECONDS`` gives it more (``make fuzz``). Every answer is held to the description, too.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from banger.actors.messages import DeleteVm, PullImage, PullKernel
from banger.api.app import ROUTES
from banger.api.openapi import document
from banger.core.errors import BangerError
from banger.core.exec import ExitStatus
from banger.core.frames import MEDIA_TYPE, FrameType, encode
from banger.core.ports import GuestPath, ImageRequest, KernelRequest
from banger.core.wire.vm_spec import VmSpec
from tests.support.fake_vmm import FakeVmm
from tests.support.fakes import World
from tests.support.owned_vms import create
from tests.support.scripted_guest import ScriptedGuest, ScriptedProcess
from tests.support.served import Served
from tests.support.unix_http import BASE_URL, unix_session
from tests.support.waiting import eventually

SECONDS = float(os.environ.get("FUZZ_SECONDS", "25"))
#: Answers to requests that wait for something go on until the caller hangs up.
ANSWER_TIMEOUT_S = 1.0
_EXAMPLES = 8


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    world = World(tmp_path / "home", FakeVmm())
    _furnish(world)
    guest = ScriptedGuest(_shout, GuestPath("file", is_link=True, real_path="/real"))
    world.guests.sessions = lambda _: guest
    served = Served(world)
    yield served
    _delete_vms(world)
    served.close()
    world.stop()


def _furnish(world: World) -> None:
    """Something of everything, so that requests mean something."""
    world.do(PullImage("alpine", ImageRequest("alpine")))
    world.do(PullKernel("lab", KernelRequest(source="lab")))
    create(world, "idle", stop_timeout_s=0.1)
    create(world, "busy", start=True, stop_timeout_s=0.1)


def _delete_vms(world: World) -> None:
    for vm in world.store.vms.all():
        with suppress(BangerError):  # an operation that a request began may be before us
            world.do(DeleteVm(vm.id, vm.name, force=True))


@pytest.mark.slow
def test_no_request_is_an_error_of_the_server(served: Served, tmp_path: Path) -> None:
    schema = schemathesis.openapi.from_dict(document([entry.described for entry in ROUTES]))
    operations = sorted((found.ok() for found in schema.get_all_operations()), key=lambda one: one.method == "delete")
    assert len(operations) == len(ROUTES)
    first, end = time.time_ns() if "FUZZ_SECONDS" in os.environ else 0, time.monotonic() + SECONDS
    print(f"seeds from {first}")
    asked = 0
    with unix_session(served.world.layout.socket) as session:
        for number in itertools.count(first):
            for operation in operations:
                if time.monotonic() > end and number > first:
                    print(f"{asked} requests")
                    return
                asked += _ask(operation, session, served, tmp_path, number)
            _delete_vms(served.world)
            eventually(lambda: not served.world.operations.active(), what="what was begun has ended")
            _delete_vms(served.world)
            _furnish(served.world)


def _ask(operation: Any, session: requests.Session, served: Served, tmp_path: Path, number: int) -> int:
    known = [row.name for store in (served.world.store.vms, served.world.store.images) for row in store.all()] + ["lab"]
    parameters = [parameter.name for parameter in operation.query] or ["unknown"]
    asked = 0

    @seed(number)
    @settings(
        max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(
        case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE),
        name=st.sampled_from(known) | st.none(),
        odd=st.none() | st.tuples(st.sampled_from(parameters), st.sampled_from(_ODD_TEXTS)),
    )
    def ask(case: Case, name: str | None, odd: tuple[str, str] | None) -> None:
        nonlocal asked
        asked += 1
        _make_harmless(case, tmp_path)
        if name is not None and "query" in (case.path_parameters or {}):
            case.path_parameters["query"] = name
        if odd is not None:
            case.query = {**(case.query or {}), odd[0]: odd[1]}
        try:
            answer = case.call(base_url=BASE_URL, session=session, timeout=ANSWER_TIMEOUT_S)
        except requests.exceptions.ConnectionError as error:
            if "Read timed out" in str(error):
                return
            raise
        except requests.exceptions.ReadTimeout:
            return
        case.validate_response(answer, checks=CHECKS)

    ask()
    return asked


CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

_ODD_TEXTS = ("", "²", "-1", "9" * 5000, "1e3", "nan", "\0", "true", "maybe", "x" * 5000, "../..", "1h")
_WORDS = st.text(max_size=12) | st.sampled_from(["", "a\0", "\ud800", "x" * 5000, "²", "-1", "NaN", "../..", "alpine"])
_NUMBERS = st.integers() | st.floats() | st.sampled_from([-0.0, 10**400, 1e308, None, True])
_JSON = st.recursive(
    _WORDS | _NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)


def _objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), _JSON, max_size=3)


_EXEC = _objects("argv", "env", "user", "workdir", "tty", "timeout_s", "argh")
_SPEC = _objects(*(one.name for one in fields(VmSpec))).map(lambda odd: {"image": "alpine", "network": "none", **odd})
_CONFIGS = st.one_of(
    _JSON, _EXEC, st.fixed_dictionaries({"spec": _SPEC}, optional={"exec": _EXEC, "name": _WORDS, "detach": _JSON})
)


@st.composite
def _frames(draw: st.DrawFn) -> bytes:
    """A CONFIG and what comes behind it, each of which may be nonsense."""
    text = json.dumps(draw(_CONFIGS)).encode("utf-8", "surrogatepass")
    data = encode(FrameType.CONFIG, text) if draw(st.integers(0, 9)) else draw(st.binary(max_size=20))
    for kind in draw(st.lists(st.sampled_from(FrameType), max_size=4)):
        data += encode(kind, draw(st.binary(max_size=10) | _JSON.map(lambda value: json.dumps(value).encode())))
    return data + draw(st.sampled_from([b"", b"i\xff\xff\xff\xff", b"z", encode(FrameType.STDIN_EOF)]))


schemathesis.openapi.media_type(MEDIA_TYPE, _frames())


@schemathesis.serializer(MEDIA_TYPE)
def _as_they_are(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


async def _shout(process: ScriptedProcess) -> ExitStatus:
    """Gives its input back in capitals."""
    while (data := await process.inputs.get()) is not None:
        process.say(data.upper())
    return ExitStatus(3)


def _make_harmless(case: Case, tmp_path: Path) -> None:
    """Files are written below a directory of the test's own, and no catalog is fetched from elsewhere."""
    if not isinstance(case.body, dict):
        return
    if isinstance(path := case.body.get("path"), str) and path.startswith("/"):
        case.body["path"] = f"{tmp_path}{path}"
    if isinstance(source := case.body.get("source"), str) and case.path == "/v1/catalog/refresh":
        case.body["source"] = source.replace("oci:", "oci:localhost:1/").replace("://", "://localhost:1/")
