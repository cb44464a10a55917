"""Plans: ordered steps that are undone together when one of them fails, and the steps of a cleanup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from banger.core.operation import Operation


def _nothing() -> None:
    """The step needs no such part."""


def _ignore(error: BaseException) -> None:
    """Nobody looks."""


_NEXT = "the next reconcile tries again: banger system reconcile"


@dataclass(frozen=True, slots=True)
class CleanupStep:
    """One thing to take down. Must be safe to run again.

    Attributes:
        subject: what is taken down, as it reads in a report: ``VMM process of web``.
        run: takes it down; ``FileNotFoundError``, ``ProcessLookupError`` and ``ENXIO`` mean it was gone already.
        needs: subjects of earlier steps without whose success this one would free what is still in use; it is then
            left alone and reported.
        what_next: what happens to the thing if this fails, for people.
    """

    subject: str
    run: Callable[[], None]
    needs: tuple[str, ...] = ()
    what_next: str = _NEXT


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of a plan; every part is idempotent.

    Attributes:
        name: shown to the user with its time.
        do: makes it, and raises unless it verified that it is there.
        intend: writes down what ``do`` will make, before it is made.
        undo: takes it down, also when ``do`` got only halfway.
    """

    name: str
    do: Callable[[], None]
    intend: Callable[[], None] = _nothing
    undo: Callable[[], None] = _nothing


def run_plan(
    steps: Sequence[PlanStep], operation: Operation, on_failure: Callable[[BaseException], None] = _ignore
) -> None:
    """Run all steps in order; if one fails, undo every step that was begun, last first, and raise its error.

    ``on_failure`` sees the error while everything is still there; it must not raise. Failures of the undoing do not
    hide the error: they are added to it as notes.
    """
    begun: list[PlanStep] = []
    try:
        for step in steps:
            with operation.step(step.name):
                begun.append(step)
                step.intend()
                step.do()
    except BaseException as error:
        on_failure(error)
        for step in reversed(begun):
            try:
                step.undo()
            except Exception as failure:  # noqa: BLE001  # one failing undo must not keep the others from running
                error.add_note(f'undoing "{step.name}" failed: {failure}')
        raise
