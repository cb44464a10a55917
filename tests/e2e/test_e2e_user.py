"""An ordinary user, with no privilege at all, gets the same as root: pull, boot, run, all in files of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images
from tests.support.daemon import NOBODY, BangerHome
from tests.support.images import TestImage

pytestmark = [pytest.mark.boot, pytest.mark.registry, pytest.mark.root, pytest.mark.slow]


def test_ordinary_user_pulls_and_runs(user_home: BangerHome, pushed: Callable[[TestImage], str]) -> None:
    user_home.run("image", "pull", pushed(images.layered()), "--name", "mine").ok()
    script = "id -u; stat -c '%a %u %g' /srv/setuid /srv/data; getfattr --only-values -n user.colour /srv/attributes"
    result = user_home.run("vm", "run", "--rm", "mine", "--", "sh", "-c", script, timeout_s=280).ok()
    assert result.text.splitlines() == ["0", "4711 0 0", "2775 1000 50", "blue"]
    assert _owners(user_home.path) == {NOBODY}
    assert user_home.leftovers() == []


def _owners(path: Path) -> set[int]:
    return {found.lstat().st_uid for found in [path, *path.rglob("*")]}
