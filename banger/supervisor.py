"""The supervisor: finds the owner of a name; spawns, stops and restarts owners; joins identical requests.

It never blocks on work: every message is handled in microseconds, and all it knows besides the operation table is
which owner has which commands outstanding. Those are kept here, not in the owner's mailbox alone, because an
owner that crashes takes its mailbox with it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pykka
from loguru import logger

from banger.actors.base import Fact, OwnerActor, safe_tell
from banger.actors.messages import (
    BeginShutdown,
    Command,
    CommandFinished,
    OwnerKey,
    OwnerTerminated,
    Perform,
    Respawn,
    Submit,
)
from banger.core.backoff import Backoff
from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind, cancelled
from banger.core.operation import Operation
from banger.core.operation_table import OperationTable
from banger.core.waiter import Waiter

Spawner = Callable[[OwnerKey, int, Callable[[Fact], None]], "pykka.ActorRef[OwnerActor]"]


@dataclass(slots=True)
class Slot:
    """One owner and what it still has to do, in order. ``ref`` is None while a crashed owner waits for its backoff."""

    key: OwnerKey
    generation: int
    ref: pykka.ActorRef[OwnerActor] | None = None
    pending: dict[str, tuple[Command, Operation]] = field(default_factory=dict)


class SupervisorActor(pykka.ThreadingActor):
    """See the module. Talk to it through :class:`Supervisor`."""

    def __init__(self, spawn: Spawner, operations: OperationTable, idle: threading.Event, backoff: Backoff) -> None:
        super().__init__()
        self._spawn = spawn
        self._operations = operations
        self._idle = idle
        self._backoff = backoff
        self._slots: dict[OwnerKey, Slot] = {}
        self._crashes: dict[OwnerKey, deque[float]] = {}
        self._failed: dict[OwnerKey, str] = {}
        self._generation = 0
        self._shutting_down = False

    def on_receive(self, message: Any) -> None:
        """Handle one message; a bug in here must not take all owners with it, so it is logged and survived."""
        try:
            match message:
                case Submit(command, waiter):
                    self._submit(command, waiter)
                case CommandFinished(key, generation, operation_id):
                    self._command_finished(key, generation, operation_id)
                case OwnerTerminated(key, generation, error):
                    self._owner_terminated(key, generation, error)
                case Respawn(key):
                    self._respawn(key)
                case BeginShutdown():
                    self._begin_shutdown()
        except Exception as error:  # noqa: BLE001  # the last line of defence, see the docstring
            logger.opt(exception=error).error("supervisor: handling {} failed", type(message).__name__)
            if isinstance(message, Submit):
                message.waiter.refuse(BangerError(ErrorKind.INTERNAL, "the supervisor failed", cause=str(error)))

    # -- requests --------------------------------------------------------------------------------------

    def _submit(self, command: Command, waiter: Waiter) -> None:
        if waiter.left:
            return
        if self._shutting_down:
            waiter.refuse(BangerError(ErrorKind.UNAVAILABLE, "the daemon is shutting down", hint="try again"))
            return
        if self._refused(command.key, waiter):
            return
        slot = self._slots.get(command.key)
        if slot and slot.pending and command.yields:
            waiter.refuse(BangerError(ErrorKind.CONFLICT, f"{command.subject} is busy", subject=command.subject))
            return
        if slot and command.joinable and slot.pending:
            # Only the newest request is joined: with a delete queued behind a pull, a new pull must come after it.
            newest, operation = next(reversed(slot.pending.values()))
            if newest == command and operation.join(waiter):
                return
        if slot and command.overtakes:
            for _, waiting in slot.pending.values():
                waiting.hurry(f"{command.verb} was requested meanwhile")
        operation = self._operations.open(command.verb, command.subject)
        operation.join(waiter)
        if slot is None:
            slot = self._slots[command.key] = self._open_slot(command.key)
        slot.pending[operation.id] = (command, operation)
        if slot.ref is not None:
            safe_tell(slot.ref, Perform(command, operation))

    def _refused(self, key: OwnerKey, waiter: Waiter) -> bool:
        reason = self._failed.get(key)
        if reason is None:
            return False
        if self._backoff.healthy(self._crashes[key], time.monotonic()):
            del self._failed[key], self._crashes[key]
            return False
        waiter.refuse(
            BangerError(
                ErrorKind.UNAVAILABLE,
                f'the owner of {key.kind.value} "{key.name}" failed too often',
                subject=key.name,
                cause=reason,
                hint="banger daemon logs",
            )
        )
        return True

    def _command_finished(self, key: OwnerKey, generation: int, operation_id: str) -> None:
        slot = self._slots.get(key)
        if slot is None or slot.generation != generation:
            return
        slot.pending.pop(operation_id, None)
        if not slot.pending:
            self._close_slot(slot)

    # -- owners ----------------------------------------------------------------------------------------

    def _open_slot(self, key: OwnerKey) -> Slot:
        self._generation += 1
        slot = Slot(key, self._generation)
        slot.ref = self._spawn(key, slot.generation, self._report)
        return slot

    def _report(self, fact: Fact) -> None:
        safe_tell(self.actor_ref, fact)

    def _close_slot(self, slot: Slot) -> None:
        """Passivate: an owner with nothing to do is stopped. Only the supervisor sends it mail, so none is lost."""
        del self._slots[slot.key]
        if slot.ref is not None:
            slot.ref.stop(block=False)
        if self._shutting_down and not self._slots:
            self._idle.set()

    def _owner_terminated(self, key: OwnerKey, generation: int, error: BaseException | None) -> None:
        slot = self._slots.get(key)
        if slot is None or slot.generation != generation:
            return  # a passivated owner's farewell
        slot.ref = None
        for operation_id, (_, operation) in list(slot.pending.items()):
            if operation.finished:
                del slot.pending[operation_id]
        crashes = self._crashes.setdefault(key, deque(maxlen=self._backoff.intensity + 1))
        if self._backoff.healthy(crashes, time.monotonic()):
            crashes.clear()
        crashes.append(time.monotonic())
        if len(crashes) > self._backoff.intensity:
            self._give_up(slot, error)
            return
        if not slot.pending:
            self._close_slot(slot)
            return
        delay = self._backoff.delay_s(len(crashes))
        logger.warning("owner {} crashed {} times: again in {:.2f} s", key, len(crashes), delay)
        timer = threading.Timer(delay, safe_tell, (self.actor_ref, Respawn(key)))
        timer.daemon = True
        timer.start()

    def _give_up(self, slot: Slot, error: BaseException | None) -> None:
        reason = f"{type(error).__name__}: {error}"
        logger.error("owner {} crashed too often, given up: {}", slot.key, reason)
        self._failed[slot.key] = reason
        for _, operation in slot.pending.values():
            operation.fail(BangerError(ErrorKind.INTERNAL, f"the owner of {slot.key} failed too often", cause=reason))
        self._close_slot(slot)

    def _respawn(self, key: OwnerKey) -> None:
        slot = self._slots.get(key)
        if slot is None or slot.ref is not None:
            return
        pending = slot.pending
        slot = self._slots[key] = self._open_slot(key)
        slot.pending = pending
        assert slot.ref is not None
        for command, operation in pending.values():
            safe_tell(slot.ref, Perform(command, operation))

    def _begin_shutdown(self) -> None:
        self._shutting_down = True
        for slot in list(self._slots.values()):
            for _, operation in slot.pending.values():
                operation.cancel("the daemon is shutting down")
            if slot.ref is None:
                self._close_slot(slot)
        if not self._slots:
            self._idle.set()


class Supervisor:
    """What the API and the owners see of the supervisor actor. Every method may be called from every thread."""

    def __init__(self, spawn: Spawner, operations: OperationTable, backoff: Backoff | None = None) -> None:
        self.operations = operations
        self._idle = threading.Event()
        self._telling = threading.Lock()
        self._closed = False
        self._ref: pykka.ActorRef[SupervisorActor] = SupervisorActor.start(
            spawn, operations, self._idle, backoff or Backoff()
        )

    def submit(self, command: Command, deadline: Deadline | None = None) -> Waiter:
        """Ask for a command; returns at once. Wait on the waiter, or leave it to lose interest."""
        waiter = Waiter(deadline or Deadline.never())
        with self._telling:  # a message told after the stop would stay unread: pykka only notices dead actors
            told = not self._closed and safe_tell(self._ref, Submit(command, waiter))
        if not told:
            waiter.refuse(cancelled("the daemon has stopped"))
        return waiter

    def shutdown(self, timeout_s: float) -> bool:
        """Cancel what runs and wait until every owner is done; False if one did not end in time."""
        safe_tell(self._ref, BeginShutdown())
        clean = self._idle.wait(timeout_s)
        with self._telling:
            self._closed = True
        self._ref.stop(block=False)
        return clean
