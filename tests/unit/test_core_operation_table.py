"""The operations that a daemon remembers."""

from __future__ import annotations

from banger.core.operation_table import KEPT, OperationTable


def test_last_operations_that_ended_are_kept_and_older_ones_forgotten() -> None:
    table = OperationTable()
    opened = [table.open("vm.start", f"vm-{number}") for number in range(3 * KEPT)]
    for operation in opened:
        operation.succeed(None)
    more = [table.open("vm.stop", f"vm-{number}") for number in range(3 * KEPT)]

    ended = [operation for operation in table.all() if operation.finished]
    assert ended[-KEPT:] == opened[-KEPT:]
    assert len(ended) < 2 * KEPT
    assert table.active() == more


def test_operation_under_way_is_never_forgotten() -> None:
    table = OperationTable()
    first = table.open("image.pull", "debian")
    for number in range(3 * KEPT):
        table.open("vm.start", f"vm-{number}").succeed(None)

    assert table.find(first.id) is first
    assert len(table.all()) < 2 * KEPT
