from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from banger.api.app import ROUTES
from banger.api.openapi import document

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document([entry.described for entry in ROUTES])


def test_description_is_valid_openapi(described: dict[str, Any]) -> None:
    from openapi_spec_validator import validate  # imported here, since that takes seconds

    validate(described)


def test_every_route_has_an_entry_of_its_own_with_parameters_named_once(described: dict[str, Any]) -> None:
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    for operation in operations:
        names = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
        assert len(names) == len(set(names)), operation["summary"]


def test_every_route_is_in_the_table_that_people_read() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    for entry in ROUTES:
        path = re.sub(r"\{query(:path)?\}", "", entry.described.path)
        last = path.rstrip("/").rpartition("/")[2]
        assert last in text, f"{entry.described.method} {entry.described.path}"
