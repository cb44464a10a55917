"""Patterns of the names that a guest may look up: ``example.org``, ``*.pypi.org``. Pure.

Names are compared as sequences of labels, never as text: a dot inside a label, an escape or a character that only
looks like another one cannot make a name match that is not the name, or below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind

Labels = tuple[bytes, ...]

#: Letters, digits, hyphens (RFC 1123 section 2.1) and the underscore of service names.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
#: RFC 1035 section 2.3.4, less the length octet of the first label and the root's.
_LONGEST_NAME = 253
_ADDRESS_LIKE = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class NamePatterns:
    """What is allowed.

    Attributes:
        exact: names that match themselves.
        below: names that match everything below them, at any depth, but not themselves; ``()`` is every name.
    """

    exact: frozenset[Labels] = frozenset()
    below: frozenset[Labels] = frozenset()

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> NamePatterns:
        """Read patterns: a name, ``*.NAME`` for everything below a name, or ``*``; case and a last dot do not matter.

        Raises:
            BangerError: ``usage`` for a pattern that is none; nothing is guessed.
        """
        exact: set[Labels] = set()
        below: set[Labels] = set()
        for pattern in patterns:
            text = pattern.strip().lower()
            if text == "*":
                below.add(())
            elif text.startswith("*."):
                below.add(_labels_of(pattern, text[2:]))
            else:
                exact.add(_labels_of(pattern, text))
        return cls(frozenset(exact), frozenset(below))

    def allows(self, labels: Sequence[bytes]) -> bool:
        """True if a name matches. ``labels`` are as on the wire: most specific first, with or without the root's."""
        name = tuple(label.lower() for label in labels)  # bytes.lower() changes ASCII letters alone, RFC 4343 section 3
        if name and not name[-1]:
            name = name[:-1]
        if not name or b"" in name:
            return False
        return name in self.exact or any(name[start:] in self.below for start in range(1, len(name) + 1))


def _labels_of(pattern: str, name: str) -> Labels:
    name = name.removesuffix(".")
    if not name.isascii():
        raise _refusal(pattern, "write the name as it goes over the wire: its labels as xn--…")
    if ":" in name or _ADDRESS_LIKE.fullmatch(name):
        raise _refusal(pattern, "it is an address: allow=ADDRESS/32 allows addresses")
    if "*" in name:
        raise _refusal(pattern, "* stands for whole labels, and only in front: *.example.org")
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refusal(pattern, "write names such as example.org or *.example.org, separated by commas")
    return tuple(label.encode("ascii") for label in labels)


def _refusal(pattern: str, hint: str) -> BangerError:
    return BangerError(ErrorKind.USAGE, f'"{pattern}" is not a name pattern', subject=pattern, hint=hint)
