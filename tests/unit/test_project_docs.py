"""What the documents say about the code is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from banger.cli import TREE, Noun
from banger.core.errors import EXIT_CODES, ErrorKind
from scripts.config_table import rows

ROOT = Path(__file__).resolve().parents[2]
CLI = (ROOT / "docs" / "cli.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_settings_table_is_that_of_the_code() -> None:
    table = CLI.split("| key | default | meaning |\n| --- | --- | --- |\n")[1].strip().splitlines()
    assert table == rows(), "run: python -m scripts.config_table"


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_error_kind_and_its_exit_code_are_documented(kind: ErrorKind) -> None:
    assert f"`{kind.value}`" in CLI
    assert re.search(rf"^\| {EXIT_CODES[kind]} \|", CLI, re.MULTILINE)


def test_every_command_is_documented() -> None:
    documented = {}
    for noun, verbs in re.findall(r"^\| (?:`([\w-]+)`)? *\| (`[^|]+`) \|$", CLI, re.MULTILINE):
        documented[noun] = set(re.findall(r"`([\w-]+)`", verbs))
    shown = {name: entry for name, entry in TREE.items() if isinstance(entry, Noun) or not entry.hidden}
    nouns = {name: set(entry.verbs) for name, entry in shown.items() if isinstance(entry, Noun)}
    alone = {name for name, entry in shown.items() if not isinstance(entry, Noun)} - {"run", "ps"}
    assert documented == {**nouns, "": alone}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_a_document_names_are_there(document: Path) -> None:
    for named in re.findall(r"`(tests/[\w./*]+)`", document.read_text(encoding="utf-8")):
        assert list(ROOT.glob(named)), f"{document.name} names {named}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"
