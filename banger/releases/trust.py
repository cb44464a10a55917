"""Whether the files of a release are those that somebody vouches for. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from banger.core.errors import BangerError, ErrorKind

_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")


def checked_sums(texts: Sequence[str]) -> tuple[str, ...]:
    """Checksums as typed, in small letters. Raises ``usage`` for what is none."""
    for text in texts:
        if not _SHA256.match(text):
            message = f'"{text}" is not a SHA-256'
            raise BangerError(ErrorKind.USAGE, message, subject=text, hint="--sha256 takes the 64 digits of sha256sum")
    return tuple(text.lower() for text in texts)


def require_trust(
    what: str,
    archive: str,
    programs: Mapping[str, str],
    given: Collection[str],
    known: Collection[str],
    hint: str,
) -> None:
    """Raise unless the archive as a whole, or each of the programs, is vouched for.

    Args:
        what: it is, for errors.
        archive: SHA-256 of the archive; empty if there is none.
        programs: name to SHA-256.
        given: sums that the user vouches for: if there are any, nothing else counts.
        known: sums that ship with banger.
        hint: how to vouch.

    Raises:
        BangerError: ``invalid`` if it is not what the user said, ``denied`` if nobody said anything.
    """
    trusted = set(given or known) - {""}
    if archive in trusted or (programs and trusted.issuperset(programs.values())):
        return
    seen = [f"{name} has {each}" for name, each in programs.items()]
    cause = f"it has {archive}" if archive else ", ".join(seen)
    if given:
        message = f'"{what}" has another SHA-256 than given'
        raise BangerError(ErrorKind.INVALID, message, subject=what, cause=cause)
    message = f'nobody vouches for "{what}"'
    raise BangerError(
        ErrorKind.DENIED, message, subject=what, cause=f"banger knows no such SHA-256: {cause}", hint=hint
    )
