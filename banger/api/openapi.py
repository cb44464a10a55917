"""The OpenAPI 3.1 description, made from the routes and the dataclasses that they take and give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, get_args, get_origin

from banger import __version__
from banger.core import codec
from banger.core.errors import ErrorKind
from banger.core.frames import MEDIA_TYPE
from banger.core.wire.facts import facts_of

_SWITCH: Mapping[str, Any] = {"type": "boolean"}
_TEXT: Mapping[str, Any] = {"type": "string"}
_TEXTS: Mapping[str, Any] = {"type": "array", "items": {"type": "string"}}
#: What routes take behind the question mark; a name means the same wherever it is.
_QUERY: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("wait", "force", "cold", "keep_home", "dry_run", "fix", "leaks", "follow"), _SWITCH),
    **dict.fromkeys(("kernel", "path", "directory", "version"), _TEXT),
    **dict.fromkeys(("state", "label"), _TEXTS),
    "timeout_s": {**_TEXT, "description": "seconds, or with units: 1h30m"},
    "tail": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    "until": {"enum": ["stopped", "running"]},
    "source": {"enum": ["console", "vmm"]},
}
_JSON, _LINES = "application/json", "application/x-ndjson"
_BINARY: Mapping[str, Any] = {"schema": {"type": "string", "format": "binary"}}
#: Nobody asks what a request's stream is called: tools that do not know our media type know the other.
_FRAMES = {MEDIA_TYPE: _BINARY, "application/octet-stream": _BINARY}


@dataclass(frozen=True, slots=True)
class Described:
    """One route as the description needs it.

    Attributes:
        answer: what the answer is, or has with more besides; None: an object, or a list of them.
        media: what the answer is written in, if not in JSON.
        long: an operation, whose events and result are streamed on demand.
        frames: its bodies are frame streams, of which the first carries one of these.
    """

    method: str
    path: str
    summary: str
    body: type[Any] | None = None
    answer: type[Any] | None = None
    many: bool = False
    media: str = _JSON
    long: bool = False
    status: int = 200
    frames: type[Any] | None = None
    query: tuple[str, ...] = ()


def parameters_of(route: Described) -> tuple[str, ...]:
    """What a route takes behind the question mark."""
    return tuple(dict.fromkeys([*route.query, *(("wait", "timeout_s") if route.long else ())]))


def is_repeated(parameter: str) -> bool:
    """It may be given several times, and each counts."""
    return _QUERY[parameter].get("type") == "array"


def document(routes: Sequence[Described]) -> dict[str, Any]:
    """The whole document."""
    schemas: dict[str, Any] = {
        "Error": {
            "type": "object",
            "properties": {
                "kind": {"enum": [kind.value for kind in ErrorKind]},
                **{name: {"type": "string"} for name in ("subject", "message", "cause", "hint", "operation_id")},
            },
        }
    }
    for route in routes:
        for request in filter(None, (route.body, route.frames)):
            _schema(request, schemas)
    asked = frozenset(schemas)  # what requests have is all that they may have; answers grow
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        # OpenAPI knows no path that spans several segments; a name with slashes is sent with them as they are.
        path = route.path.replace("{query:path}", "{query}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    for name in asked - {"Error"}:
        schemas[name]["additionalProperties"] = False
    return {
        "openapi": "3.1.0",
        "info": {"title": "banger", "version": __version__, "description": "Disposable Linux machines on this host."},
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _operation(route: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "schema": dict(_QUERY[name])} for name in parameters_of(route)
    ]
    if "{query" in route.path:
        schema = {**_TEXT, "minLength": 1, "description": "a name, an id, or a unique prefix of either"}
        parameters.append({"name": "query", "in": "path", "required": True, "schema": schema})
    error = {"type": "object", "properties": {"error": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            **_answers(route, schemas),
            "default": {"description": "failed", "content": {_JSON: {"schema": error}}},
        },
    }
    if route.frames:
        first = f"frames; the payload of the first, CONFIG, is a {route.frames.__name__}"
        operation["requestBody"] = {"required": True, "description": first, "content": _FRAMES}
    elif route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": _schema(route.body, schemas)}},
        }
    return operation


def _answers(route: Described, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.frames:
        return {"200": {"description": "frames, the last of them EXIT", "content": {MEDIA_TYPE: _BINARY}}}
    if route.long:
        begun = {"type": "object", "properties": {"operation": {"type": "object"}}, "required": ["operation"]}
        return {
            "200": {"description": "with wait: events, then the result", "content": {_LINES: _BINARY}},
            "202": {"description": "the operation has begun", "content": {_JSON: {"schema": begun}}},
        }
    if route.media != _JSON:
        return {"200": {"description": "done", "content": {route.media: _BINARY}}}
    schema = _schema(route.answer, schemas) if route.answer else {"type": "object"}
    if route.many:
        schema = {"type": "array", "items": schema}
    return {str(route.status): {"description": "done", "content": {_JSON: {"schema": schema}}}}


def _schema(annotation: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an annotation; dataclasses go to ``schemas`` and are referred to."""
    if codec.is_optional(annotation):
        return {"anyOf": [_schema(codec.without_none(annotation), schemas), {"type": "null"}]}
    origin = get_origin(annotation)
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(annotation)[0], schemas)}
    if origin is not None and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(get_args(annotation)[1], schemas)}
    if is_dataclass(annotation):
        return _reference(annotation, schemas)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return {"enum": [member.value for member in annotation]}
    if annotation is datetime:
        return {"type": "string", "format": "date-time"}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}.get(annotation, "object")}


def _reference(cls: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = cls.__name__
    if name not in schemas:
        schemas[name] = {}  # a cycle must find it
        schemas[name] = {
            "type": "object",
            "description": (cls.__doc__ or "").split("\n\n")[0].strip(),
            "properties": {item.name: _property(cls, item, schemas) for item in fields(cls)},
            "required": [
                item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING
            ],
        }
    return {"$ref": f"#/components/schemas/{name}"}


def _property(cls: Any, item: Field[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field, with its default and what it says about itself."""
    schema = _schema(codec.field_types(cls)[item.name], schemas)
    if item.default is not MISSING and not is_dataclass(item.default):
        schema |= {"default": codec.to_plain(item.default)}
    about = facts_of(cls).get(item.name)
    if about is None:
        return schema
    bounds = {"enum": list(about.choices) or None, "minimum": about.most and 0, "maximum": about.most}
    described = {"description": f"{about.help} {about.detail}".strip()}
    return schema | described | {key: value for key, value in bounds.items() if value is not None}
