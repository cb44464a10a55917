"""Image references: parsing and normalising what a user types.

The grammar is that of the ``distribution/reference`` specification, which every OCI tool shares; the rule that a
bare ``alpine`` means ``docker.io/library/alpine:latest`` is Docker's. Nothing here touches the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind

DOCKER_HUB = "docker.io"
_HUB_ALIASES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HUB_API_HOST = "registry-1.docker.io"
_HUB_NAMESPACE = "library/"
DEFAULT_TAG = "latest"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_LONGEST_NAME = 255


def is_digest(text: object) -> bool:
    """True for ``sha256:`` and 64 lower-case hex digits: the only text that becomes part of a path or a URL."""
    return isinstance(text, str) and _DIGEST.match(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """One image of one registry.

    Attributes:
        domain: the registry as it is written and as credentials are filed: ``docker.io``, ``127.0.0.1:5000``.
        repository: the path below it: ``library/alpine``.
        tag: empty if only a digest was given.
        digest: ``sha256:…`` or empty; when both are given, the digest decides.
    """

    domain: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Normalise ``text``; raises a ``usage`` error that says which part is wrong."""
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _bad(text, f'"{digest}" is not sha256: and 64 lower-case hexadecimal digits')
        name, tag = _split_tag(rest)
        if tag is not None and not _TAG.match(tag):
            raise _bad(text, f'"{tag}" cannot be a tag')
        domain, repository = _split_domain(name)
        if not _is_domain(domain):
            raise _bad(text, f'"{domain}" cannot be a registry')
        if not _REPOSITORY.match(repository):
            raise _bad(text, _why_not_repository(repository))
        if len(f"{domain}/{repository}") > _LONGEST_NAME:
            raise _bad(text, f"the name is longer than {_LONGEST_NAME} characters")
        return cls(domain, repository, tag or ("" if digest else DEFAULT_TAG), digest)

    @property
    def host(self) -> str:
        """Host and port that serve the registry's API."""
        return _HUB_API_HOST if self.domain == DOCKER_HUB else self.domain

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def familiar(self) -> str:
        """The short form people use, good as an image name: ``alpine``, ``python:3.12-slim``, ``ghcr.io/a/b:1``."""
        name = f"{self.domain}/{self.repository}"
        if self.domain == DOCKER_HUB:
            shorter = [self.repository.removeprefix(_HUB_NAMESPACE), self.repository]
            name = next((short for short in shorter if _split_domain(short) == (DOCKER_HUB, self.repository)), name)
        tag = "" if self.tag in ("", DEFAULT_TAG) else f":{self.tag}"
        return name + tag + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.domain}/{self.repository}{tag}{digest}"


def _split_tag(text: str) -> tuple[str, str | None]:
    """A colon after the last slash starts a tag; one before it belongs to a port."""
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    return head + slash + name, tag if colon else None


def _split_domain(name: str) -> tuple[str, str]:
    """The first part is a registry if it could not be a path: it has a dot or a port, or is ``localhost``."""
    first, slash, rest = name.partition("/")
    is_domain = bool(slash) and (bool(set(first) & set(".:[")) or first == "localhost")
    if not is_domain or first in (".", ".."):
        first, rest = DOCKER_HUB, name
    first = first.lower()
    if first in _HUB_ALIASES:
        return DOCKER_HUB, rest if "/" in rest else _HUB_NAMESPACE + rest
    return first, rest


def _is_domain(domain: str) -> bool:
    if not _DOMAIN.match(domain):
        return False
    _, colon, port = domain.rpartition(":")
    return not (colon and port.isdigit()) or 0 < int(port) < 65536


def _why_not_repository(repository: str) -> str:
    name = repository.removeprefix(_HUB_NAMESPACE)
    if not name:
        return "the name is empty"
    if ".." in name.split("/"):
        return 'a name never contains ".."'
    if name != name.lower():
        return "names are lower-case"
    return f'"{name}" has a part that does not start and end with a letter or digit, or an odd character'


def _bad(text: str, cause: str) -> BangerError:
    return BangerError(
        ErrorKind.USAGE,
        f'"{text}" is not an image reference',
        subject=text,
        cause=cause,
        hint="write NAME[:TAG], HOST[:PORT]/NAME[:TAG] or NAME@sha256:DIGEST",
    )
