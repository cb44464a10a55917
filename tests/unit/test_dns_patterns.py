"""Patterns of names: what they match, and that nothing else can be made to match."""

from __future__ import annotations

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.dns.patterns import NamePatterns


def allows(patterns: str, name: str | dns.name.Name) -> bool:
    labels = dns.name.from_text(name).labels if isinstance(name, str) else name.labels
    return NamePatterns.parse(patterns.split(",")).allows(labels)


@pytest.mark.parametrize(
    ("patterns", "name"),
    [
        ("example.org", "example.org"),
        ("example.org", "example.org."),
        ("example.org.", "example.org"),
        ("EXAMPLE.org", "eXample.ORG"),
        (" example.org , b.net", "b.net"),
        ("*.pypi.org", "files.pypi.org"),
        ("*.pypi.org", "a.b.c.PyPI.org"),
        ("*.org", "example.org"),
        ("*", "anything.at.all"),
        ("_dmarc.example.org", "_dmarc.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_name_that_is_meant_is_allowed(patterns: str, name: str) -> None:
    assert allows(patterns, name)


@pytest.mark.parametrize(
    ("patterns", "name"),
    [
        ("example.org", "www.example.org"),
        ("example.org", "org"),
        ("example.org", "."),
        ("example.org", "xample.org"),
        ("example.org", "notexample.org"),
        ("example.org", "example.org.evil.net"),
        ("*.pypi.org", "pypi.org"),
        ("*.pypi.org", "evilpypi.org"),
        ("*.pypi.org", "a.pypi.org.evil.net"),
        ("*", "."),
        ("example.org", r"example\.org"),
        ("example.org", r"example\.org.evil.net"),
        ("*.pypi.org", r"a\.pypi.org"),
        ("*.pypi.org", r"a.pypi\.org"),
        ("*.pypi.org", r"evil\.pypi\.org"),
        ("example.org", r"example\000.org"),
        ("example.org", r"example.org\000"),
        ("example.org", r"\032example.org"),
    ],
)
def test_name_that_only_looks_like_it_is_refused(patterns: str, name: str) -> None:
    assert not allows(patterns, name)


@pytest.mark.parametrize("label", ["ex\u0430mple", "\u00e9xample", "\uff25xample", "\u017fample", "example\u200b"])
def test_letters_beyond_ascii_match_no_pattern(label: str) -> None:
    name = dns.name.Name([label.encode(), b"org", b""])
    assert not allows("example.org,xample.org,sample.org", name)


@pytest.mark.parametrize(
    "pattern",
    [
        "", ".", "*.", "..", "a..b", ".example.org", "*example.org", "a.*.org", "*.*.org", "**", "ex ample.org", "exa/mple",
        "bücher.de", "example\u3002org", "-a.org", "a-.org", "1.2.3.4", "10.0.0.0/8", "::1", "[::1]", "a" * 64 + ".org",
        "a." * 127 + "org", "example.org\n", "example.org:443", "https://example.org",
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_a_hint(pattern: str) -> None:
    if pattern == "example.org\n":
        assert NamePatterns.parse([pattern]) == NamePatterns.parse(["example.org"])  # a list read from a file
        return
    with pytest.raises(BangerError) as caught:
        NamePatterns.parse([pattern])
    assert (caught.value.kind, caught.value.subject) == (ErrorKind.USAGE, pattern)
    assert caught.value.hint


def test_no_pattern_allows_nothing() -> None:
    assert not NamePatterns().allows((b"example", b"org", b""))


LABELS = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=4)


@given(LABELS)
def test_whatever_matches_is_the_name_or_below_it(labels: list[bytes]) -> None:
    patterns = NamePatterns.parse(["example.org", "*.pypi.org"])
    lower = [label.lower() for label in labels]
    expected = lower == [b"example", b"org"] or (len(lower) > 2 and lower[-2:] == [b"pypi", b"org"])
    assert patterns.allows([*labels, b""]) is expected


@given(LABELS, st.sampled_from([[b"pypi", b"org"], [b"PYPI", b"ORG"], [b"pypi.org"], [b"example", b"org"]]))
def test_whatever_is_below_a_wildcard_matches(labels: list[bytes], end: list[bytes]) -> None:
    patterns = NamePatterns.parse(["*.pypi.org"])
    assert patterns.allows([*labels, *end, b""]) is ([label.lower() for label in end] == [b"pypi", b"org"])
