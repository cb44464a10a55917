"""Pinned sources: what a source of an image or a kernel says that its content must be. Pure."""

from __future__ import annotations

import re

_PIN = re.compile(r"(?:@sha256:|#sha256=)([0-9a-fA-F]{64})\Z")


def pin_of(source: str) -> str:
    """``sha256:…`` as a source states it (``NAME@sha256:HEX``, ``URL#sha256=HEX``), or empty."""
    match = _PIN.search(source)
    return f"sha256:{match[1].lower()}" if match else ""


def tells_the_same(present: str, wanted: str) -> bool:
    """True if what came from the source ``present`` need not be filed anew when it comes from ``wanted`` as well.

    What was pulled unpinned has to be, so that its record vouches for the pin from then on.
    """
    return present == wanted or not pin_of(wanted)
