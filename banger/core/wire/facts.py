"""The metadata of a spec's field: help, option, and how it is parsed.

Everything else is made from that: the option of the command line and its completion, the schema in the API's
description, the check at the door, the line in ``vm show`` and the table in docs/cli.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

_T = TypeVar("_T")
#: The key in the metadata of a dataclass's field.
FACTS = "facts"
#: Maximum length of a text, in characters.
MOST_TEXT = 4096


@dataclass(frozen=True, slots=True)
class Facts:
    """One field.

    Attributes:
        help: one line for people; it ends with a full stop.
        flags: options of the command line; none: it is said in another way there.
        metavar: what stands for the value in the help.
        detail: what a program needs to know besides.
        read: what was typed (a text, or a list of them) to the field's value; ``None``: as typed.
        choices: the only values that there are.
        offers: values that completion knows; others may be right too.
        choices_hint: what to add where a value is none of the choices.
        is_blank_a_value: typed as ``''``, it is read like any other text; else it counts as not given.
        setting: the key in config.toml that decides where nothing is given.
        most: greatest number; the smallest is 0.
        most_words: the same for people, where the number does not speak for itself.
        is_shown: lists and errors show the text, which has only characters that can be printed.
        is_of_runs: only ``vm run`` has the option.
        title: what ``vm show`` calls it; empty: like its first option.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str = ""
    detail: str = ""
    read: Callable[[Any], Any] | None = None
    choices: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    choices_hint: str = ""
    is_blank_a_value: bool = False
    setting: str = ""
    most: float | None = None
    most_words: str = ""
    is_shown: bool = True
    is_of_runs: bool = False
    title: str = ""


def described(default: _T, facts: Facts) -> _T:
    """The field of a dataclass, as :func:`dataclasses.field` makes it."""
    return field(default=default, metadata={FACTS: facts})


def facts_of(cls: type[Any]) -> Mapping[str, Facts]:
    """The metadata of a dataclass's fields, by name; fields without any are left out."""
    return _facts_of(cls)  # type: ignore[arg-type]  # mypy does not see that a class is hashable


def defaults_of(cls: type[Any]) -> Mapping[str, Any]:
    """The defaults of a dataclass's fields, by name; ``MISSING`` for a required field."""
    return {one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in fields(cls)}


@cache
def _facts_of(cls: Any) -> Mapping[str, Facts]:
    return {item.name: item.metadata[FACTS] for item in fields(cls) if FACTS in item.metadata}
