"""What a commit leaves out: machine identity, credentials, and stale files.

Every VM made from the image would share it. Users keep what they do want by naming its path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from banger.rootfs.ext4.reader import Inode


class Treatment(Enum):
    """What becomes of a path.

    A symbolic link says nothing of its own: only ``LEAVE_OUT`` and ``AS_IN_BASE`` treat links as they treat files.
    """

    LEAVE_OUT = "left out, with all below it"
    LEAVE_OUT_FILE = "left out if it is a file"
    EMPTY = "kept as an empty file"
    AS_IN_BASE = "as it is in the image that the VM was made of"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table; ``pattern`` matches whole paths without their first slash."""

    pattern: str
    treatment: Treatment
    reason: str


RULES = (
    Rule(r"etc/ssh/ssh_host_[^/]+", Treatment.LEAVE_OUT, "a host key proves which machine answers"),
    Rule(r"etc/dropbear/dropbear_\w+_host_key", Treatment.LEAVE_OUT, "a host key proves which machine answers"),
    Rule(r"(.+/)?\.ssh/authorized_keys2?", Treatment.LEAVE_OUT, "whoever may enter one VM would enter all of them"),
    Rule(r"etc/ssh/authorized_keys(\.d)?/.+", Treatment.LEAVE_OUT, "whoever may enter one VM would enter all of them"),
    Rule(r"etc/machine-id", Treatment.EMPTY, "must be unique; machine-id(5): an empty file is filled at the next boot"),
    Rule(r"var/lib/dbus/machine-id", Treatment.LEAVE_OUT_FILE, "must be unique; made anew when it is missing"),
    Rule(
        r"(.+/)?\.((ba|a|z)?sh|python|mysql|psql|sqlite|node_repl)_history",
        Treatment.LEAVE_OUT_FILE,
        "what was typed, passwords included",
    ),
    Rule(r"(.+/)?\.(lesshst|viminfo|wget-hsts)", Treatment.LEAVE_OUT_FILE, "what was looked at"),
    Rule(r"(.+/)?\.local/state/bash/history", Treatment.LEAVE_OUT_FILE, "what was typed, passwords included"),
    Rule(r"(tmp|var/tmp)/.+", Treatment.LEAVE_OUT, "temporary by definition (file-hierarchy(7))"),
    Rule(r"(run|var/run)/.+", Treatment.LEAVE_OUT, "of one boot only, and hidden by a mount when the next one comes"),
    Rule(r"etc/(hostname|hosts|resolv\.conf)", Treatment.AS_IN_BASE, "banger writes them at a VM's first boot"),
    Rule(r"\.banger|var/lib/banger(/.+)?", Treatment.LEAVE_OUT, "banger's own note that a VM has been set up"),
    Rule(
        r"var/lib/(systemd|urandom)/(random-seed|credential\.secret)|var/lib/(misc/random-seed|seedrng/.+)",
        Treatment.LEAVE_OUT,
        "a secret seed used twice is none",
    ),
    Rule(
        r"var/lib/(dhcp|dhclient|dhcpcd|udhcpc|NetworkManager)/[^/]*(lease|timestamps|secret_key)[^/]*",
        Treatment.LEAVE_OUT,
        "an address lent to one machine",
    ),
    Rule(
        r"var/lib/cloud/(instance|instances|data|sem)(/.+)?",
        Treatment.LEAVE_OUT,
        "cloud-init would take the new machine for the old one, already set up",
    ),
)


class CommitRules:
    """The table, less the paths that a user wants to keep."""

    def __init__(self, keep: Sequence[str] = ()) -> None:
        """``keep`` are absolute paths; with a directory all below it is kept."""
        self._keep = tuple(os.fsencode(path.strip("/")) for path in keep)
        pattern = "|".join(f"(?P<rule_{index}>{rule.pattern})" for index, rule in enumerate(RULES))
        self._pattern = re.compile(pattern.encode(), re.DOTALL)
        self._treatments = {f"rule_{index}": rule.treatment for index, rule in enumerate(RULES)}

    def treatment(self, path: bytes, inode: Inode) -> Treatment | None:
        """What becomes of a path, without its first slash, that the merged tree has; ``None`` for nothing special."""
        match = self._pattern.fullmatch(path)
        if match is None or self._is_wanted(path):
            return None
        treatment = self._treatments[match.lastgroup or ""]
        if inode.is_directory:
            return treatment if treatment is Treatment.LEAVE_OUT else None
        if treatment in (Treatment.EMPTY, Treatment.LEAVE_OUT_FILE) and not inode.is_file:
            return None
        return treatment

    def _is_wanted(self, path: bytes) -> bool:
        """True for what is to be kept, for what is below it, and for the directories that lead there."""
        within = path + b"/"
        return any(not kept or within.startswith(kept + b"/") or kept.startswith(within) for kept in self._keep)
