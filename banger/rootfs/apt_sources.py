"""Reading the host's package sources for a bootstrap: the distribution's signed archives, never a third party's.

Both formats of ``sources.list(5)`` are read: one line per source, and deb822 stanzas (``*.sources``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from banger.posix.files import read_regular

APT_DIRECTORY = Path("/etc/apt")
KEYRING_DIRECTORY = Path("/usr/share/keyrings")

_ONE_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(?:\s+\S+)*)\Z"
)
_YES = frozenset({"yes", "true", "with", "on", "enable"})
_NO = frozenset({"no", "false", "without", "off", "disable"})
_SCHEMES = frozenset({"http", "https", "file"})
_AREAS = frozenset("main contrib non-free non-free-firmware restricted universe multiverse".split())
#: What follows the code name in the suites that belong to a release; backports and proposed updates do not.
_SUFFIXES = ("-updates", "-security", "")
_ROLLING = frozenset({"sid", "unstable", "experimental"})
_ALIASES = ("stable", "testing", "unstable", "oldstable")


@dataclass(frozen=True, slots=True)
class AptSource:
    """One archive, one suite.

    Attributes:
        signed_by: path of the keyring; empty where the source leaves it to apt's default.
    """

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self) -> str:
        """The one-line form."""
        return f"deb [signed-by={self.signed_by}] {self.uri} {self.suite} {' '.join(self.components)}"


def read_sources(directory: Path = APT_DIRECTORY) -> list[AptSource]:
    """Every enabled binary source under ``/etc/apt``, in the order apt reads them; unreadable files are left out."""
    parts = sorted((directory / "sources.list.d").glob("*"))
    found: list[AptSource] = []
    for file in [directory / "sources.list", *parts]:
        parse = {".list": parse_one_line, ".sources": parse_deb822}.get(file.suffix)
        try:
            text = read_regular(file).decode(errors="replace") if parse else ""
        except OSError:
            continue
        if parse:
            found += parse(text)
    return found


def parse_one_line(text: str) -> Iterator[AptSource]:
    """Sources of a ``*.list`` file."""
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.partition("#")[0].strip())
        if not match:
            continue
        pairs = [option.partition("=") for option in (match["options"] or "").split()]
        options = {key.lower(): value for key, _, value in pairs}
        if not _is_unsafe(options):
            components = tuple(match["components"].split())
            yield AptSource(match["uri"], match["suite"], components, options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[AptSource]:
    """Sources of a ``*.sources`` file: every combination of a stanza's URIs and suites."""
    for stanza in _stanzas(text):
        disabled = stanza.get("enabled", "yes").lower() in _NO
        if disabled or "deb" not in stanza.get("types", "").split() or _is_unsafe(stanza):
            continue
        components = tuple(stanza.get("components", "").split())
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                yield AptSource(uri, suite, components, stanza.get("signed-by", "").strip())


def select(
    sources: Iterable[AptSource],
    distribution: str,
    codename: str,
    suite: str,
    keyrings: Path = KEYRING_DIRECTORY,
) -> list[AptSource]:
    """The sources to bootstrap ``suite`` from, each pinned to the distribution's own keyring.

    Args:
        sources: what the host has.
        distribution: ``ID`` of the host's ``/etc/os-release``.
        codename: its ``VERSION_CODENAME``.
        suite: what is wanted. If the host has no source for it, the mirrors of its own release are asked for it.
        keyrings: where the distribution installs its keyrings.

    Returns:
        Sources without duplicates; empty if the host has none that can be trusted.
    """
    keyring = next((k for k in sorted(keyrings.glob(f"{distribution}-archive-keyring.*")) if k.suffix != ".asc"), None)
    own = [resolved for source in sources if (resolved := _own_archive(source, distribution)) is not None]
    for base in (suite, codename, *_ALIASES):
        suffixes = ("",) if suite in _ROLLING else _SUFFIXES
        names = {base + suffix: suite + suffix for suffix in suffixes}
        chosen = [
            replace(source, suite=names[source.suite], signed_by=source.signed_by or str(keyring))
            for source in own
            if base and source.suite in names and (source.signed_by or keyring)
        ]
        if any(source.suite == suite for source in chosen):
            return list(dict.fromkeys(chosen))
    return []


def _own_archive(source: AptSource, distribution: str) -> AptSource | None:
    """The source with a plain address, or ``None`` if it is not one of the distribution's archives.

    A third party's suites are often named like the distribution's, so the keyring decides, or else the path.
    """
    source = replace(source, uri=_first_mirror(source.uri).rstrip("/"))
    components = tuple(c for c in source.components if c in _AREAS)
    parts = urlsplit(source.uri)
    if parts.scheme not in _SCHEMES or "main" not in components or "@" in parts.netloc:
        return None  # a login in the address would end up in the image
    if source.signed_by:
        is_own = re.fullmatch(rf"{distribution}-archive-[a-z-]+\.(gpg|pgp|asc)", Path(source.signed_by).name)
    else:
        is_own = re.fullmatch(rf"{distribution}(-[a-z]+)?", parts.path.rpartition("/")[2])
    return replace(source, components=components) if is_own else None


def _first_mirror(uri: str) -> str:
    """``mirror+file:/path`` lists mirrors, one a line, best first; Debian's cloud images use it."""
    if not uri.startswith("mirror+file:"):
        return uri
    try:
        lines = Path("/" + uri.removeprefix("mirror+file:").lstrip("/")).read_text(encoding="utf-8").splitlines()
    except OSError:
        return uri
    return next((line.split()[0] for line in lines if line.strip() and not line.startswith("#")), uri)


def _is_unsafe(options: Mapping[str, str]) -> bool:
    return any(options.get(key, "no").lower() in _YES for key in ("trusted", "allow-insecure", "allow-weak"))


def _stanzas(text: str) -> Iterator[Mapping[str, str]]:
    """Paragraphs as field (lower-case) to value; lines that begin with a blank continue the field before them."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    fields: dict[str, str] = {}
    last = ""
    for line in [*lines, ""]:
        if not line.strip():
            if fields:
                yield fields
            fields, last = {}, ""
        elif line[0].isspace():
            fields[last] = f"{fields.get(last, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            fields[last] = value.strip()


def index_checksums(release: str, components: Sequence[str], architecture: str) -> list[str]:
    """The SHA-256 lines of a ``Release`` or ``InRelease`` file for the package lists of one architecture.

    They change exactly when a package does; the file's dates change more often.
    """
    _, _, after = release.partition("\nSHA256:")
    wanted = tuple(f"{component}/binary-{architecture}/Packages" for component in components)
    lines = []
    for line in after.splitlines()[1:]:
        if not line.startswith(" "):
            break
        if line.rpartition(" ")[2].startswith(wanted):
            lines.append(" ".join(line.split()))
    return sorted(lines)
