"""Handing out test files to workers."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController


class FileScheduling(LoadScopeScheduling):
    """Whole files, in the order of the collection; a test that ended its worker is not tried again."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.config.option.loadscopereorder = False

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
        # A worker begins a test when it knows the next one. With more at hand it would keep files from idle workers.
        if node.shutting_down or not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
            super()._reschedule(node)
