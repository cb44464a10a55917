"""Debian packages without installing them: queries, downloads verified by apt, unpacking.

Works for ordinary users: apt needs only the package lists, which are readable by all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.posix.programs import ProgramError, output_of

# Downloading as root, apt drops to a user that cannot write where banger stages, and warns about it.
_APT_GET = ("apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download")


def is_available(token: CancelToken) -> bool:
    """True on a host with apt and dpkg."""
    try:
        output_of(["apt-get", "--version"], token)
        output_of(["dpkg-deb", "--version"], token)
    except (BangerError, ProgramError):
        token.raise_if_cancelled()
        return False
    return True


def show(package: str, token: CancelToken) -> dict[str, str]:
    """The fields of the version that apt would install, with long values' first lines.

    Raises:
        BangerError: ``not_found`` if apt's lists do not have the package; ``unavailable`` without apt.
    """
    try:
        text = output_of(["apt-cache", "show", "--no-all-versions", package], token).decode(errors="replace")
    except ProgramError as error:
        raise BangerError(
            ErrorKind.NOT_FOUND,
            f'apt does not know the package "{package}"',
            subject=package,
            cause=error.words,
            hint="apt-get update",
        ) from error
    return parse_fields(text)


def parse_fields(text: str) -> dict[str, str]:
    """The fields of the first paragraph of a control file (deb822)."""
    paragraph = text.lstrip("\n").partition("\n\n")[0]
    return dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", paragraph, re.MULTILINE))


def dependencies(fields: dict[str, str]) -> list[str]:
    """Names of the packages that must be there, the first of each set of alternatives."""
    items = fields.get("Depends", "").split(",")
    return [re.split(r"[ |(:]", item.strip(), maxsplit=1)[0] for item in items if item.strip()]


def download(packages: Iterable[str], directory: Path, token: CancelToken) -> list[Path]:
    """Fetch packages into ``directory``, checked by apt against its signed lists.

    Raises:
        BangerError: ``unavailable`` with apt's own words.
    """
    names = list(packages)
    try:
        output_of([*_APT_GET, *names], token, cwd=directory)
    except ProgramError as error:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'cannot download the package "{", ".join(names)}"',
            subject=names[0],
            cause=error.words,
            hint="apt-get update",
        ) from error
    return sorted(directory.glob("*.deb"))


def unpack(package: Path, directory: Path, token: CancelToken) -> None:
    """Unpack a package's files below ``directory``; nothing of it is run."""
    try:
        output_of(["dpkg-deb", "-x", str(package), str(directory)], token)
    except ProgramError as error:
        raise BangerError(
            ErrorKind.INVALID, f'cannot unpack "{package.name}"', subject=package.name, cause=error.words
        ) from error
