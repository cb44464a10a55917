"""Which checkpoints are too many, and what a prune takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from banger.core.models import Snapshot
from banger.core.names import check_snapshot_name
from banger.core.snapshot_rules import PruneRule, checkpoint_name, prunable, surplus_checkpoints
from banger.core.wire.vm_spec import VmSpec

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def taken(name, hours_ago=0, vm_id="web", is_checkpoint=True, size=1):
    return Snapshot(
        id=name, name=name, vm_id=vm_id, vm_name=vm_id, image_id="i", kernel_id="k", spec=VmSpec("x"), storage="fake",
        created_at=NOW - timedelta(hours=hours_ago), memory_bytes=size, is_checkpoint=is_checkpoint,
    )  # fmt: skip


def names(found):
    return [one.name for one in found]


def test_numbers_of_checkpoints_only_grow():
    assert checkpoint_name("web", set()) == "web-before-1"
    assert checkpoint_name("web", {"web-before-2", "web-before-9", "web-before-x", "web-10", "db-before-40"}) == (
        "web-before-10"
    )


def test_name_of_a_checkpoint_of_a_long_name_is_one():
    name = checkpoint_name("a" * 40, {checkpoint_name("a" * 40, set())})
    assert name.endswith("-before-2")
    assert check_snapshot_name(name) == name


@pytest.mark.parametrize(
    ("keep", "most_bytes", "gone"),
    [(5, 100, []), (2, 100, ["old"]), (1, 100, ["old", "mid"]), (5, 25, ["old"]), (5, 3, ["old", "mid"]), (0, 0, ["old", "mid"])],
)  # fmt: skip
def test_oldest_checkpoints_of_a_vm_go_first_and_the_newest_never(keep, most_bytes, gone):
    there = [
        taken("new", 1, size=10), taken("old", 3, size=10), taken("mid", 2, size=10),
        taken("mine", 9, is_checkpoint=False), taken("other", 9, vm_id="db"),
    ]  # fmt: skip
    assert names(surplus_checkpoints(there, there[0], keep, most_bytes)) == gone


def test_checkpoint_never_takes_a_newer_one_or_itself():
    there = [taken("new", 1), taken("old", 3), taken("mid", 2)]
    assert names(surplus_checkpoints(there, there[2], 1, 0)) == ["old"]
    assert names(surplus_checkpoints(there, there[1], 1, 0)) == []


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        (PruneRule(), ["gone"]),
        (PruneRule(vm_id="web"), []),
        (PruneRule(keep=1), ["old", "mid"]),
        (PruneRule(keep=0), ["gone-mine", "gone", "other", "old", "mid", "new"]),
        (PruneRule(keep=1, vm_id="db"), []),
        (PruneRule(older_than_s=2.5 * 3600), ["gone-mine", "gone", "other", "old"]),
        (PruneRule(keep=1, older_than_s=2.5 * 3600), ["gone-mine", "old"]),
        (PruneRule(keep=2, older_than_s=3600, vm_id="web"), ["old"]),
    ],
)
def test_prune_takes_what_the_rule_says_the_oldest_first(rule, gone):
    there = [
        taken("old", 3, is_checkpoint=False), taken("mid", 2), taken("new", 1), taken("other", 4, vm_id="db"),
        taken("gone", 5, vm_id="nobody"), taken("gone-mine", 6, vm_id="nobody", is_checkpoint=False),
    ]  # fmt: skip
    found = prunable(there, rule, NOW, {"web", "db"})
    if rule == PruneRule(keep=1):  # of each VM
        assert names(found) == ["gone-mine", *gone]
    else:
        assert names(found) == gone
