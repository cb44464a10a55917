"""The owner of one name: an actor that executes its commands one at a time, in its own thread.

What pykka does and does not do, and what follows (measured with 4.5):

- An exception in a told message kills the actor after ``on_failure``; its remaining mail is lost. So the asker is
  answered first, and the supervisor keeps every command until it is reported finished.
- ``tell`` to a dead actor raises in the sender, so :func:`safe_tell` is the only way to tell.
- ``__init__`` runs in the thread that starts the actor, so it only assigns.
- Replies travel through :class:`~banger.core.operation.Operation`, never through ``ask``: nobody here can wait for
  an actor that is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pykka
from loguru import logger

from banger.actors.messages import Command, CommandFinished, OwnerKey, OwnerTerminated, Perform
from banger.actors.services import Services
from banger.core.errors import BangerError, internal_error
from banger.core.operation import Operation
from banger.host import reserve

Fact = CommandFinished | OwnerTerminated


def safe_tell(ref: pykka.ActorRef[Any], message: object) -> bool:
    """Tell, unless the receiver is dead; False then. A sender never dies of its receiver's death."""
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        logger.debug("dead letter: {}", message)
        return False
    return True


class OwnerActor(pykka.ThreadingActor):
    """Base of the owners. Subclasses implement :meth:`handle`; everything they know comes from the store."""

    def __init__(self, key: OwnerKey, generation: int, report: Callable[[Fact], None], services: Services) -> None:
        super().__init__()
        self.key = key
        self.generation = generation
        self.services = services
        self._report = report

    def handle(self, command: Command, operation: Operation) -> Any:
        """Do the command and return its result. A :class:`BangerError` is an answer; anything else is a crash."""
        raise NotImplementedError

    def on_receive(self, message: Any) -> None:
        """Work on one command, from the recheck to the answer."""
        assert isinstance(message, Perform)
        command, operation = message.command, message.operation
        if not operation.begin():  # cancelled while it waited here; already answered
            self._finished(operation)
            return
        with logger.contextualize(op=operation.id, owner=str(self.key)):
            level = "DEBUG" if command.background else "INFO"
            logger.log(level, "{} {}: begins", command.verb, command.subject)
            if command.makes_room:
                reserve.give_up(self.services.layout)
            try:
                result = self.handle(command, operation)
            except BangerError as error:
                self._log_failure(command, operation, error)
                operation.fail(error)
            except Exception as error:
                operation.fail(internal_error(error, f'doing {command.verb} of "{command.subject}"'))
                raise
            else:
                logger.log(level, "{} {}: done in {:.3f} s", command.verb, command.subject, operation.elapsed_s)
                operation.succeed(result)
        self._finished(operation)

    def ask_owner(self, command: Command, operation: Operation) -> Any:
        """Ask another owner for something and wait, as long as ``operation`` is wanted; its steps become ours."""
        waiter = self.services.submit(command, operation.deadline)
        waiter.subscribe(operation.mirror)
        return waiter.wait(operation.token)

    def on_stop(self) -> None:
        """Tell the supervisor that this owner is gone, so that a new one may begin."""
        self._report(OwnerTerminated(self.key, self.generation, None))

    def on_failure(
        self,
        exception_type: type[BaseException] | None,  # noqa: ARG002  # pykka's signature
        exception_value: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002  # pykka's signature
    ) -> None:
        """Tell the supervisor that this owner crashed."""
        logger.opt(exception=exception_value).error("owner {} crashed", self.key)
        self._report(OwnerTerminated(self.key, self.generation, exception_value or RuntimeError("unknown")))

    def _finished(self, operation: Operation) -> None:
        self._report(CommandFinished(self.key, self.generation, operation.id))

    def _log_failure(self, command: Command, operation: Operation, error: BangerError) -> None:
        notes = "; ".join(getattr(error, "__notes__", ()))
        logger.warning(
            "{} {}: {} after {:.3f} s: {}{}",
            command.verb, command.subject, error.kind.value, operation.elapsed_s, error, f" ({notes})" if notes else "",
        )  # fmt: skip
