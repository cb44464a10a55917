"""What tells a machine from others."""

from __future__ import annotations

from collections.abc import Sequence

#: A command that tells it, a line each, and random numbers that its kernel makes now; the first line is its host name.
WHO = (
    "hostname; cat /etc/hostname /proc/sys/kernel/random/boot_id; cat /etc/machine-id 2>/dev/null || echo none;"
    "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/uuid"
)
WHO_LINES = 6


def check_all_differ(told: Sequence[str]) -> None:
    """Of what machines have told, each line is another one on each; what they have not got is the same."""
    for lines in zip(*(one.splitlines() for one in told), strict=True):
        assert len(set(lines)) == len(lines) or set(lines) == {"none"}, lines
