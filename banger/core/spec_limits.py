"""What a wish for a VM may ask for at all. Pure; asked at the door, before anything is written or made.

The bounds are not what a host has to give, but what is a mistake on any: a number that overflows a clock, a name that
writes to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator

from banger.core.errors import BangerError, ErrorKind
from banger.core.models import VmSpec
from banger.core.units import GIB, LONGEST_S, MIB, TIB, format_size
from banger.core.vmm_names import ACCELERATORS

MOST_CPUS = 1024
#: What a host has is asked elsewhere; this only keeps numbers that overflow out.
_MOST_MEMORY_MIB = 1 << 32
#: What an ext4 with blocks of 4 KiB can have is more; a sparse disk of that size is still made in a moment.
_MOST_DISK_MIB = 16 * TIB // MIB
_MOST_TEXT = 4096
#: Linux takes no longer string in an environment (``MAX_ARG_STRLEN``, execve(2)).
_MOST_VARIABLE = 128 * 1024
_MOST_ITEMS = 4096


def check_spec(spec: VmSpec) -> None:
    """Raise ``usage`` for a wish that is none, naming the field."""
    _check_number("cpus", spec.cpus, MOST_CPUS)
    for name, size_mib, most_mib in (
        ("memory_mib", spec.memory_mib, _MOST_MEMORY_MIB),
        ("disk_mib", spec.disk_mib, _MOST_DISK_MIB),
        ("home_mib", spec.home_mib, _MOST_DISK_MIB),
    ):
        _check_number(name, size_mib, most_mib, f"{most_mib} ({format_size(most_mib * MIB)}; {GIB // MIB} is a GiB)")
    for name, seconds in (("ttl_s", spec.ttl_s), ("idle_s", spec.idle_s)):
        _check_number(name, seconds, LONGEST_S, f"{LONGEST_S:.0f} (a hundred years)")
    for name, text, most in _texts(spec):
        _check_text(name, text, most)
    for variable in spec.env:
        if variable.find("=") < 1:
            raise _refused("env", f"{variable[:20]!r} names no variable with a value", "write NAME=VALUE")
        if "\0" in variable or len(variable) >= _MOST_VARIABLE:
            raise _refused(
                "env", f"{variable[:20]!r}… is no environment variable", f"less than {_MOST_VARIABLE} bytes, no NUL"
            )
    if spec.accelerator not in ("", *ACCELERATORS):
        hint = f"use {' or '.join(ACCELERATORS)}, or leave it out"
        raise _refused("accelerator", f'"{spec.accelerator}" is none', hint)


def _texts(spec: VmSpec) -> Iterator[tuple[str, str, int]]:
    for name in ("image", "kernel", "user", "workdir", "network", "egress", "storage", "home", "machine"):
        yield name, getattr(spec, name), _MOST_TEXT
    for name, items in (("env", spec.env), ("labels", spec.labels), ("ports", spec.ports)):
        _check_number(f"{name} (their number)", len(items), _MOST_ITEMS)
    for pair in spec.labels.items():
        yield from (("labels", text, _MOST_TEXT) for text in pair)


def _check_number(name: str, value: float, most: float, words: str = "") -> None:
    if not 0 <= value <= most:  # which NaN is not either
        raise _refused(name, f"{value} is out of bounds", f"at least 0 and at most {words or most}")


def _check_text(name: str, text: str, most: int) -> None:
    if len(text) > most:
        raise _refused(name, f"it has {len(text)} characters", f"at most {most}")
    if not text.isprintable():
        raise _refused(name, f"{text!r} has characters that cannot be printed", "leave them out")


def _refused(name: str, why: str, hint: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f'a VM cannot have this "{name}"', subject=name, cause=why, hint=hint)
