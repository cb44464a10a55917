"""What a wish for a VM may ask for at all. Pure; asked at the door, before anything is written or made.

The bounds are not what a host has to give, but what is a mistake on any: a number that overflows a clock, a name that
writes to a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from banger.core.egress import check_egress
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_home_name, check_hostname
from banger.core.publishing import check_publishing
from banger.core.restarting import check_restarting
from banger.core.wire.facts import MOST_TEXT, Facts, facts_of
from banger.core.wire.vm_spec import VmSpec

#: Linux takes no longer string in an environment or a command line (``MAX_ARG_STRLEN``, execve(2)).
_MOST_WORD = 128 * 1024
_MOST_ITEMS = 4096
#: Fields whose texts a program gets as they are, line ends and all.
_WORDS = frozenset(("env", "entrypoint", "command"))


def check_spec(spec: VmSpec) -> None:
    """Raise ``usage`` (``conflict`` for ports) for a wish that is none, or contradicts itself; it names the field."""
    for name in facts_of(VmSpec):
        check_field(name, getattr(spec, name))
    for variable in spec.env:
        if variable.find("=") < 1:
            raise _refused("env", f"{variable[:20]!r} names no variable with a value", "write NAME=VALUE")
    if spec.hostname:
        check_hostname(spec.hostname)
    if spec.home:
        check_home_name(spec.home)
    check_egress(spec.egress, spec.network)
    check_restarting(spec)
    check_publishing(spec.ports, spec.network)


def check_field(name: str, value: Any) -> None:
    """Raise ``usage`` for what a field of a :class:`VmSpec` cannot hold, whatever the others do."""
    about = facts_of(VmSpec)[name]
    match value:
        case bool() | None:
            pass
        case str():
            _check_text(name, value)
            _check_choice(name, value, about)
        case int() | float():
            _check_number(name, value, about)
        case Mapping():
            _check_items(name, value)
            for text in (*value.keys(), *value.values()):
                _check_text(name, text)
        case _:
            _check_items(name, value)
            if name in _WORDS:
                _check_words(name, value)


def _check_number(name: str, value: float, about: Facts) -> None:
    if about.most is not None and not 0 <= value <= about.most:  # which NaN is not either
        words = about.most_words or f"{about.most:g}"
        raise _refused(name, f"{value} is out of bounds", f"at least 0 and at most {words}")


def _check_text(name: str, text: str) -> None:
    if len(text) > MOST_TEXT:
        raise _refused(name, f"it has {len(text)} characters", f"at most {MOST_TEXT}")
    if not text.isprintable():
        raise _refused(name, f"{text!r} has characters that cannot be printed", "leave them out")


def _check_choice(name: str, value: str, about: Facts) -> None:
    if about.choices and value not in about.choices:
        known = " or ".join(choice for choice in about.choices if choice)
        raise _refused(name, f'"{value}" is none', f"use {known}{', or leave it out' if '' in about.choices else ''}")


def _check_items(name: str, items: Sequence[Any] | Mapping[str, str]) -> None:
    if len(items) > _MOST_ITEMS:
        raise _refused(name, f"it has {len(items)} items", f"at most {_MOST_ITEMS}")


def _check_words(name: str, words: Sequence[str]) -> None:
    for word in words:
        if "\0" in word or len(word.encode(errors="surrogateescape")) >= _MOST_WORD:
            hint = f"less than {_MOST_WORD} bytes, no NUL"
            raise _refused(name, f"no program can be given {word[:20]!r}…", hint)


def _refused(name: str, why: str, hint: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f'a VM cannot have this "{name}"', subject=name, cause=why, hint=hint)
