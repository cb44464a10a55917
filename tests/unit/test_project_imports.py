"""The import rules hold what ARCHITECTURE.md promises, and notice when it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_imports import check, read_map

MAP = """
## The map
| place | job | may import (of ours) |
| --- | --- | --- |
| `core/` | vocabulary | nothing |
| `cli.py`, `commands/` | parse | `core` |
| `store/` | SQL | `core` |
| `daemon/` | wiring | everything but `cli` |

## Next
| `GET /v1/x` | | nothing of the sort |
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "ARCHITECTURE.md").write_text(MAP)
    for name, text in {
        "__init__.py": "",
        "__main__.py": "from banger import cli\n",
        "cli.py": "def main():\n    from banger.commands import vm\n",
        "commands/__init__.py": "",
        "commands/vm.py": "import banger.core.models\n",
        "commands/daemon.py": "def run():\n    from banger.daemon import main\n",
        "core/__init__.py": "",
        "daemon/__init__.py": "",
        "core/models.py": "import json\n",
        "store/__init__.py": "from banger.core import models\nimport pysqlite3\n",
        "daemon/main.py": "from banger import store\nimport loguru\n",
    }.items():
        path = tmp_path / "banger" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return tmp_path


def append(tree: Path, name: str, text: str) -> None:
    path = tree / "banger" / name
    path.write_text(path.read_text() + text)


def test_this_tree_breaks_no_rule() -> None:
    assert check(Path(__file__).resolve().parents[2]) == []


def test_map_is_read_with_its_exceptions() -> None:
    rows = {row.places: row.may_import for row in read_map(MAP)}
    assert rows["core",] == frozenset()
    assert rows["cli", "commands"] == {"core"}
    assert rows["daemon",] == {"core", "store", "daemon"}


def test_allowed_arrows_pass(tree: Path) -> None:
    assert check(tree) == []


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("core/models.py", "def f():\n    from banger.store import x\n", "banger.core.models:3: core may not import banger.store"),
        ("store/__init__.py", "from . import daemon\nfrom .. import daemon\n", "store may not import banger.daemon"),
        ("commands/vm.py", "def f():\n    import banger.daemon\n", "commands may not import banger.daemon"),
        ("daemon/main.py", "from banger.commands import vm\n", "daemon may not import banger.commands.vm"),
        ("core/models.py", "import requests.adapters\n", "start-up loads requests.adapters: banger.commands.vm -> banger.core.models"),
    ],
)  # fmt: skip
def test_forbidden_arrow_is_reported(tree: Path, module: str, line: str, complaint: str) -> None:
    append(tree, module, line)
    assert complaint in "\n".join(check(tree))


def test_heavy_import_for_type_checkers_only_is_allowed(tree: Path) -> None:
    append(tree, "core/models.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import requests\n")
    assert check(tree) == []


def test_module_missing_from_the_map_is_reported(tree: Path) -> None:
    (tree / "banger" / "extra.py").write_text("import json\n")
    assert check(tree) == ['banger.extra: "extra" is not on the map in ARCHITECTURE.md']


def test_map_that_names_an_unknown_place_is_refused(tree: Path) -> None:
    (tree / "ARCHITECTURE.md").write_text(MAP.replace("parse | `core`", "parse | `corr`"))
    assert "corr" in check(tree)[0]
