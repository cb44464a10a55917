"""Parsing ``WWW-Authenticate`` (RFC 9110, 11.6.1): any number of challenges in any number of headers.

A comma ends a parameter as well as a challenge, so a header cannot be cut at its commas. Where servers are known to be
careless (no comma between parameters, a URL without quotation marks) what they mean is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_GAP = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\Z)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BARE = re.compile(r'[^\s,"]*')
_NEXT = re.compile(r'[^,"]*(?:"(?:[^"\\]|\\.)*"?[^,"]*)*', re.DOTALL)
#: More than any server has to offer; what comes after is not read.
_MOST_CHALLENGES = 16


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to sign in that a server offers.

    Attributes:
        scheme: in lower case.
        parameters: by name in lower case; of one given twice, the first.
        token68: what some schemes have in place of parameters.
    """

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """The challenges of all ``WWW-Authenticate`` headers of one answer, in their order."""
    found = [challenge for header in headers for challenge in _challenges(header)]
    return found[:_MOST_CHALLENGES]


def _challenges(header: str) -> Iterator[Challenge]:
    scheme, token68 = "", ""
    parameters: dict[str, str] = {}
    at = _after(_GAP, header, 0)
    while at < len(header):
        word = _TOKEN.match(header, at)
        if word is None:  # nothing that RFC 9110 allows here: go on behind the next comma
            at = _after(_GAP, header, _after(_NEXT, header, at))
            continue
        equals = _EQUALS.match(header, word.end())
        if equals and scheme and not token68:
            value, at = _value(header, equals.end())
            parameters.setdefault(word[0].lower(), value)
        else:
            if scheme:
                yield Challenge(scheme, parameters, token68)
            scheme, token68, parameters = word[0].lower(), "", {}
            at = _after(_GAP, header, word.end())
            blob = _TOKEN68.match(header, at) if header[word.end() : at].isspace() else None
            if blob:
                token68, at = blob[0], blob.end()
        at = _after(_GAP, header, at)
    if scheme:
        yield Challenge(scheme, parameters, token68)


def _value(header: str, at: int) -> tuple[str, int]:
    """A parameter's value, and where it ends."""
    if quoted := _QUOTED.match(header, at):
        return _ESCAPED.sub(r"\1", quoted[1]), quoted.end()
    end = _after(_BARE, header, at)
    return header[at:end], end


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
