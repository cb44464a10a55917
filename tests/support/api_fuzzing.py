"""Requests by the API's description and against it, each answer held to it.

A room of its own, since importing what makes them takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from banger.api.app import ROUTES
from banger.api.openapi import document
from banger.core.frames import MEDIA_TYPE, FrameType, encode
from banger.core.wire.vm_spec import VmSpec
from tests.support.unix_http import BASE_URL

#: Answers to requests that wait for something go on until the caller hangs up.
ANSWER_TIMEOUT_S = 1.0
_EXAMPLES = 8


def operations() -> list[Any]:
    """What the description has, those that take something away last."""
    schema = schemathesis.openapi.from_dict(document([entry.described for entry in ROUTES]))
    return sorted((found.ok() for found in schema.get_all_operations()), key=lambda one: one.method == "delete")


def ask(operation: Any, session: requests.Session, known: Sequence[str], tmp_path: Path, number: int) -> int:
    """Ask for one operation a few times, with and against its description; returns how often.

    Args:
        operation: one of :func:`operations`.
        session: leads to the server.
        known: names of what is there.
        tmp_path: files that a request names are below it.
        number: the seed.
    """
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
    def once(case: Case, name: str | None, odd: tuple[str, str] | None) -> None:
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

    once()
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


def _make_harmless(case: Case, tmp_path: Path) -> None:
    """Files are written below a directory of the test's own, no catalog is fetched from elsewhere, forks are few."""
    if not isinstance(case.body, dict):
        return
    if isinstance(count := case.body.get("count"), int):
        case.body["count"] = min(count, 2)
    if isinstance(path := case.body.get("path"), str) and path.startswith("/"):
        case.body["path"] = f"{tmp_path}{path}"
    if isinstance(source := case.body.get("source"), str) and case.path == "/v1/catalog/refresh":
        case.body["source"] = source.replace("oci:", "oci:localhost:1/").replace("://", "://localhost:1/")
