"""Forcing an order of events: something is made to happen at the very instant when an owner comes by a crash point."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

import banger

Deed = Callable[[], object]


def modules_with_points() -> list[str]:
    """Every module that has crash points in it."""
    root = Path(banger.__file__).parent
    found = [path for path in sorted(root.rglob("*.py")) if "import crashpoint\n" in path.read_text()]
    return [".".join(path.relative_to(root.parent).with_suffix("").parts) for path in found]


class Interleaving:
    """Crash points as places to interfere. The thread that comes by one does the deed, then goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed: list[str] = []
        self._at: dict[str, deque[Deed]] = {}
        self._after: deque[tuple[int, Deed]] = deque()
        for name in modules_with_points():
            monkeypatch.setattr(importlib.import_module(name), "crashpoint", self._come_by)

    def at(self, point: str, deed: Deed) -> None:
        """Do it when somebody comes by ``point`` the next time."""
        self._at.setdefault(point, deque()).append(deed)

    def after(self, points: int, deed: Deed) -> None:
        """Do it at the n-th point from now, whichever that is; to be given in ascending order."""
        self._after.append((len(self.passed) + points, deed))

    def run_the_rest(self) -> None:
        """Do what no point came for."""
        while self._after:
            self._after.popleft()[1]()

    def _come_by(self, point: str) -> None:
        self.passed.append(point)
        if waiting := self._at.get(point):
            waiting.popleft()()
        while self._after and self._after[0][0] <= len(self.passed):
            self._after.popleft()[1]()
