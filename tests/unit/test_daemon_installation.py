"""The mark of an installation: made once, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from banger.core.errors import BangerError
from banger.daemon.installation import installation_id
from banger.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.from_environment({"BANGER_HOME": str(tmp_path)})
    made.make_directories()
    return made


def test_installation_has_one_id_for_good(layout: Layout) -> None:
    first = installation_id(layout)
    assert len(first) == 12
    assert installation_id(layout) == first


@pytest.mark.parametrize("text", ["", "0123", "0123456789AB", "../../../etc", "0123456789ab extra"])
def test_damaged_id_is_refused_and_left_as_it_is(layout: Layout, text: str) -> None:
    layout.installation_id_file.write_text(text)
    with pytest.raises(BangerError, match="does not hold an installation's id"):
        installation_id(layout)
    assert layout.installation_id_file.read_text() == text
