"""A cache of findings about this host: one JSON file, valid while the circumstances are the same.

Several processes may share it (daemons of one user, ``banger doctor``); the last who writes is believed. It only saves
time, so a disk that takes no file costs the next one who asks that time, and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loguru import logger

from banger.posix.files import read_regular


class FindingsCache:
    """Findings by name."""

    def __init__(self, file: Path, circumstances: Sequence[str], title: str) -> None:
        """Nothing is read yet.

        Args:
            file: where it is.
            circumstances: what was found under others counts as nothing.
            title: what the file calls the findings.
        """
        self._file = file
        self._circumstances = list(circumstances)
        self._title = title

    def load(self) -> dict[str, Any]:
        """What was kept; anything unreadable counts as nothing."""
        try:
            data: Any = json.loads(read_regular(self._file))
            found = data[self._title] if data["circumstances"] == self._circumstances else {}
            return dict(found.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def save(self, found: Mapping[str, Any]) -> None:
        """Keep ``found`` in place of what was kept. A file that cannot be written is logged."""
        fresh = self._file.with_suffix(f".{os.getpid()}.new")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            data = {"circumstances": self._circumstances, self._title: dict(found)}
            fresh.write_text(json.dumps(data, indent=1), encoding="utf-8")
            fresh.replace(self._file)
        except OSError as error:
            logger.warning("{}: what was found is not kept: {}", self._file, error)
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
