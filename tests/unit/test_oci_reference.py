"""References: what people type, and what must never become a URL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import ARTIFACT_NAME
from banger.oci.reference import Reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "host", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "alpine"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim", "registry-1.docker.io", "python:3.12-slim"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest", "registry-1.docker.io", "grafana/grafana"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "alpine"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "registry-1.docker.io", "alpine"),
        ("ghcr.io/org/app:1", "ghcr.io/org/app:1", "ghcr.io", "ghcr.io/org/app:1"),
        ("GHCR.io/org/app", "ghcr.io/org/app:latest", "ghcr.io", "ghcr.io/org/app"),
        ("localhost/foo", "localhost/foo:latest", "localhost", "localhost/foo"),
        ("localhost:5000/foo", "localhost:5000/foo:latest", "localhost:5000", "localhost:5000/foo"),
        ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000", "127.0.0.1:5000/a/b/c:x"),
        ("[::1]:5000/foo", "[::1]:5000/foo:latest", "[::1]:5000", "[::1]:5000/foo"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e:latest", "registry-1.docker.io", "a__b/c-d.e"),
        ("docker.io/localhost/a", "docker.io/localhost/a:latest", "registry-1.docker.io", "docker.io/localhost/a"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "registry-1.docker.io", "docker.io/a.b/c"),
        ("library/a/b", "docker.io/library/a/b:latest", "registry-1.docker.io", "library/a/b"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", "registry-1.docker.io", f"alpine@{DIGEST}"),
        (f"q.io/a:1@{DIGEST}", f"q.io/a:1@{DIGEST}", "q.io", f"q.io/a:1@{DIGEST}"),
    ],
)
def test_reference_is_normalised(text: str, full: str, host: str, familiar: str) -> None:
    reference = Reference.parse(text)

    assert str(reference) == full
    assert reference.host == host
    assert reference.familiar() == familiar


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the name is empty"),
        ("Alpine", "lower-case"),
        ("org/App", "lower-case"),
        ("../../etc", '".."'),
        ("a/../b", '".."'),
        ("a//b", "odd character"),
        ("/a", "odd character"),
        ("a/", "odd character"),
        ("a b", "odd character"),
        ("a?x=1", "odd character"),
        ("https://ghcr.io/a", "registry"),
        ("ghcr.io:99999/a", "registry"),
        ("ghcr.io:0/a", "registry"),
        ("-bad.io/a", "registry"),
        ("alpine:", "tag"),
        ("alpine:-x", "tag"),
        ("alpine:" + "x" * 129, "tag"),
        ("alpine@sha256:abc", "hexadecimal"),
        ("alpine@" + DIGEST.upper(), "hexadecimal"),
        ("alpine@sha512:" + "0" * 128, "hexadecimal"),
        ("alpine\n", "odd character"),
        ("alpine:1\n", "tag"),
        ("x/" * 130 + "y", "longer than"),
    ],
)
def test_reference_that_is_none_is_refused_with_the_reason(text: str, cause: str) -> None:
    with pytest.raises(BangerError) as failure:
        Reference.parse(text)

    assert failure.value.kind is ErrorKind.USAGE
    assert cause in failure.value.cause


def test_target_prefers_the_digest() -> None:
    assert Reference.parse(f"alpine:3@{DIGEST}").target == DIGEST
    assert Reference.parse("alpine:3").target == "3"


WORDS = [
    "docker.io",
    "localhost",
    "library",
    "..",
    "a.b",
    "app",
    "x-1",
    ":5000",
    "/",
    ":",
    "@",
    DIGEST,
    "A",
    "\n",
    "[::1]",
]


@given(st.lists(st.sampled_from(WORDS), max_size=8).map("".join) | st.text("abz09AZ./:@-_[]% \n", max_size=40))
def test_any_accepted_reference_is_safe_and_stable(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except BangerError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert ".." not in reference.repository.split("/")
    assert not set(reference.repository) & set(" \n%?#@:")
    assert ARTIFACT_NAME.match(reference.familiar().lower()) or reference.domain.startswith("[")
