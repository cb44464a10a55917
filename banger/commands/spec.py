"""The options that describe a VM, made from the fields of :class:`VmSpec`, and the spec they become.

A verb that makes a VM takes them all by :func:`takes_vm_options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

from typer import Argument, Option

from banger.commands.environment import environment
from banger.config import Config
from banger.core.codec import field_types
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.facts import Facts, defaults_of, facts_of
from banger.core.wire.reading import one_of
from banger.core.wire.vm_spec import VmSpec, from_settings
from banger.layout import Layout

_T = TypeVar("_T")

ImageArgument = Annotated[
    str | None, Argument(metavar="[IMAGE]", show_default=False, help=facts_of(VmSpec)["image"].help)
]
EnvFiles = Annotated[
    list[Path] | None, Option("--env-file", metavar="FILE", help="Environment, K=V or K a line; --env counts for more.")
]
Pull = Annotated[str, Option("--pull", metavar="WHEN", help="Fetch the image: always, missing or never.")]
Privileged = Annotated[bool, Option("--privileged", hidden=True, help="Taken: root in a VM has every right.")]
Name = Annotated[str, Option("--name", metavar="NAME", help="Made up when not given.")]


def _option(name: str) -> Any:
    """The option of the command line for a field of :class:`VmSpec`."""
    about = facts_of(VmSpec)[name]
    return Option(*about.flags, metavar=about.metavar or None, help=about.help)


Env = Annotated[list[str] | None, _option("env")]
User = Annotated[str, _option("user")]
Workdir = Annotated[str, _option("workdir")]


@dataclass(frozen=True, slots=True)
class VmOptions:
    """What was typed to describe a VM: ``given`` are options of the spec's own fields, by their names."""

    given: Mapping[str, Any]
    name: Name = ""
    env_file: EnvFiles = None
    pull: Pull = "missing"
    privileged: Privileged = False

    def spec(self, layout: Layout, image: str | None, *, ephemeral: bool = False) -> VmSpec:
        """The spec; what was not given comes from the settings, or is left to the image.

        Raises:
            BangerError: ``usage`` for a value that is none.
        """
        if image == "":
            hint = "see whether a variable of your script is set"
            raise BangerError(ErrorKind.USAGE, "the image's name is empty", hint=hint)
        config = Config.load(layout.config_file)
        given = {**self.given, "env": environment(self.given["env"], self.env_file)}
        typed = {name: _read(name, value) for name, value in given.items() if _is_given(name, value)}
        decided = {"image": config.text("vm.image"), **from_settings(config.chosen), **typed}
        return VmSpec(**{**decided, "image": image or decided["image"], "ephemeral": ephemeral})


def takes_vm_options(verb: Callable[..., _T]) -> Callable[..., _T]:
    """Let a verb take the options of a VM, and hand them over as its one parameter ``vm_options``."""
    own = inspect.signature(verb, eval_str=True)
    of_spec = [
        name
        for name, about in facts_of(VmSpec).items()
        if about.flags and (verb.__name__ == "run" or not about.is_of_runs)
    ]
    hints = get_type_hints(VmOptions, include_extras=True)
    others = [one.name for one in fields(VmOptions) if one.default is not MISSING]
    known = {name: _parameter(name, _default_of(name), Annotated[_typed_as(name), _option(name)]) for name in of_spec}
    known |= {one.name: _parameter(one.name, one.default, hints[one.name]) for one in fields(VmOptions)}
    options = [known[name] for name in _in_order(of_spec, others)]

    @wraps(verb)
    def with_vm_options(*args: Any, **given: Any) -> _T:
        vm_options = VmOptions(
            {name: given.pop(name) for name in of_spec}, **{name: given.pop(name) for name in others}
        )
        return verb(*args, vm_options=vm_options, **given)

    before = [param for param in own.parameters.values() if param.kind is not inspect.Parameter.KEYWORD_ONLY]
    after = [param for name, param in own.parameters.items() if param not in before and name != "vm_options"]
    with_vm_options.__signature__ = own.replace(parameters=[*before, *options, *after])  # type: ignore[attr-defined]
    return with_vm_options


def _in_order(of_spec: Sequence[str], others: Sequence[str]) -> list[str]:
    """As the help shows them: the name first, and files of variables behind variables."""
    order = ["name", *of_spec, *(name for name in others if name not in ("name", "env_file"))]
    order.insert(order.index("env") + 1, "env_file")
    return order


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _typed_as(name: str) -> Any:
    """What typer is to take for a field: a switch, a text, or several texts."""
    annotation = field_types(VmSpec)[name]
    if annotation is bool:
        return bool
    return list[str] | None if get_origin(annotation) in (tuple, Mapping) else str | None


def _default_of(name: str) -> Any:
    """The field's own, where it says something to people and nothing else decides."""
    default = defaults_of(VmSpec)[name]
    if isinstance(default, bool):
        return default
    return str(default) if isinstance(default, str) and default and not facts_of(VmSpec)[name].setting else None


def _is_given(name: str, typed: Any) -> bool:
    return typed is not None and (typed != "" or facts_of(VmSpec)[name].is_blank_a_value)


def _read(name: str, typed: Any) -> Any:
    about: Facts = facts_of(VmSpec)[name]
    value = about.read(typed) if about.read else typed
    if isinstance(value, str) and about.choices:
        one_of(about.flags[0], value, (*about.offers, *about.choices), about.choices_hint)
    annotation = field_types(VmSpec)[name]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return annotation(value)
    return tuple(value) if isinstance(value, list) else value
