"""The range of users that ``vmm.jail_uids`` names."""

from __future__ import annotations

from banger.core.errors import BangerError, ErrorKind

#: Above are the numbers that old programs take for negative ones.
_HIGHEST = 2**31 - 1


def parse_span(text: str) -> range:
    """``FIRST-LAST``, as in ``vmm.jail_uids``; raises ``usage`` for anything else."""
    first, dash, last = text.replace(" ", "").partition("-")
    if (
        dash
        and f"{first}{last}".isascii()
        and first.isdecimal()
        and last.isdecimal()
        and 0 < int(first) <= int(last) <= _HIGHEST
    ):
        return range(int(first), int(last) + 1)
    raise BangerError(
        ErrorKind.USAGE, f'"{text}" is not a valid value for vmm.jail_uids', subject="vmm.jail_uids",
        cause=f"it must be FIRST-LAST, from 1 to {_HIGHEST}", hint="banger config show",
    )  # fmt: skip
