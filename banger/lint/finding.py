"""The findings of a lint."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """A VM of this image will not come up, or cannot run the image's programs."""
    WARNING = "warning"
    """Something that people expect of a VM will not work."""
    INFO = "info"
    """A fact worth knowing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        code: names the kind of finding for programs, as ``subject-state``; stable.
        message: one lower-case line, paths in double quotes.
        hint: what to do about it, or empty.
    """

    severity: Severity
    code: str
    message: str
    hint: str = ""
