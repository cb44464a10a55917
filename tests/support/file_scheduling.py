"""Handing out test files to workers."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class FileScheduling(LoadScopeScheduling):
    """Whole files, in the order of the collection; a test that ended its worker is not tried again.

    Workers beyond the first ``leaders`` take files from the end of that order: what is light, while the others wait for
    their machines.
    """

    def __init__(self, config: pytest.Config, log: Any, leaders: int) -> None:
        super().__init__(config, log)
        self.config.option.loadscopereorder = False
        self._leaders = leaders

    def _assign_work_unit(self, node: WorkerController) -> None:
        if self.nodes.index(node) >= self._leaders:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Take back what a worker has not done, but for the test in which it ended, which is the answer."""
        units = self.assigned_work.pop(node)
        crashed = next((test for unit in units.values() for test, is_done in unit.items() if not is_done), None)
        if crashed is None:
            return None
        units[self._split_scope(crashed)][crashed] = True
        self.workqueue.update({file: unit for file, unit in units.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _reschedule(self, node: WorkerController) -> None:
        if node not in self.registered_collections:  # it takes the place of one that has ended, and has begun just now
            return
        # A worker begins a test when it knows the next one. With more at hand it would keep files from idle workers.
        if node.shutting_down or not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)
