"""The id that marks everything of one installation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from banger.core.errors import BangerError, ErrorKind
from banger.host.installation import installation_id
from banger.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return replace(Layout.from_environment({"BANGER_HOME": str(tmp_path)}), data=tmp_path)


def test_installation_keeps_the_id_that_it_made(layout: Layout) -> None:
    made = installation_id(layout)
    assert len(made) == 12
    assert installation_id(layout) == made


def test_two_installations_have_different_ids(layout: Layout, tmp_path: Path) -> None:
    other = replace(layout, data=tmp_path / "other")
    other.data.mkdir()
    assert installation_id(layout) != installation_id(other)


@pytest.mark.parametrize("text", ["", "0123", "0123456789ab0", "../../etc/abc"])
def test_damaged_id_is_refused_rather_than_replaced(layout: Layout, text: str) -> None:
    layout.installation_id_file.write_text(text)
    with pytest.raises(BangerError) as caught:
        installation_id(layout)
    assert caught.value.kind is ErrorKind.INVALID
    assert layout.installation_id_file.read_text() == text
