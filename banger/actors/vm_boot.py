"""Watching a guest boot: its console, its VMM, and, if its kernel is new to KVM, its pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from banger.actors.services import Services
from banger.actors.vm_files import VmFiles
from banger.core import console
from banger.core.boot_pace import BootPace, BootProgress, stall
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import ProcessIdentity
from banger.core.operation import Operation
from banger.core.ports import Health, Machine, VmmDriver

#: How often the console is looked at while a guest boots, in seconds.
CONSOLE_POLL_S = 0.02
#: How often, in seconds, what the VMM used is asked: that takes reading more than one file.
_VMM_POLL_S = 0.1
#: How often, in seconds, the VMM itself is asked how its machine is: that takes some of the time of a busy process.
_CONDITION_POLL_S = 0.5
_FIRST_QUESTION_S = 0.25
#: How many times as long a boot may take that nobody waits for.
_UNHURRIED = 5


@dataclass(slots=True)
class NotUpError(Exception):
    """A guest that does not come up.

    Attributes:
        reason: one line for people.
        console: what it printed.
        kind: of the error that its user gets.
        doubtful: the machine may be to blame, not the guest: it stalled, or ended without a word.
        broke: the VMM said that it could not go on.
    """

    reason: str
    console: str
    kind: ErrorKind = ErrorKind.UNAVAILABLE
    doubtful: bool = False
    broke: bool = False


class BootWatch:
    """Watches one boot. Made before the VMM is started: what consoles and logs hold by then is of earlier boots."""

    def __init__(
        self, services: Services, driver: VmmDriver, files: VmFiles, operation: Operation, *, is_unhurried: bool = False
    ) -> None:
        """``is_unhurried``: nobody waits for it, and it has to make do with little of the host's processors."""
        self._patience = _UNHURRIED if is_unhurried else 1
        self._services = services
        self._driver = driver
        self._files = files
        self._operation = operation
        self.console_offset = files.console_size()
        self.log_offset = files.vmm_log_size()

    def wait(self, identity: ProcessIdentity, pace: BootPace | None) -> None:
        """Return once the guest's init says that it is up, which is only a hint: connecting proves it.

        Raises:
            NotUpError: it says that it failed, ends, does not keep the ``pace``, or takes too long.
            BangerError: ``cancelled`` or ``timeout`` if its caller wants no more.
        """
        operation = self._operation
        limit = operation.elapsed_s + self._patience * self._services.config.seconds("vm.boot_timeout_s")
        signs = _SignsOfLife()
        while True:
            text = self._files.console_from(self.console_offset)
            marks = console.boot_marks(text)
            if marks.failure:
                raise NotUpError(marks.failure, text)
            if marks.ready_s is not None:
                return
            if not self._services.vms.vmms.processes.is_alive(identity):
                raise NotUpError("the machine ended while it booted", text, doubtful=True)
            if signs.vmm_is_due():
                self._look_at_vmm(identity, pace, signs, marks, text)
            if operation.elapsed_s > limit:
                raise NotUpError("the guest did not come up in time", text, ErrorKind.TIMEOUT)
            operation.deadline.raise_if_expired("waiting for the guest to boot")
            operation.haste.wait(CONSOLE_POLL_S)
            operation.haste.raise_if_cancelled()

    @contextmanager
    def lasting(self, identity: ProcessIdentity) -> Iterator[CancelToken]:
        """Watch on while somebody waits for the guest's answer on the token that this gives.

        Raises:
            NotUpError: in place of what the block raises, if its token was cancelled because the guest failed or ended.
        """
        token, causes = CancelToken(), list[NotUpError]()
        forget = self._operation.haste.on_cancel(lambda: token.cancel(self._operation.haste.reason))
        watching = threading.Thread(target=self._watch_on, args=(identity, token, causes), name="boot-watch")
        watching.start()
        try:
            yield token
        except BangerError as error:
            token.cancel()
            watching.join()
            if causes:
                raise causes[0] from error
            raise
        finally:
            forget()
            token.cancel()
            watching.join()

    def _watch_on(self, identity: ProcessIdentity, token: CancelToken, causes: list[NotUpError]) -> None:
        while not token.wait(_VMM_POLL_S):
            text = self._files.console_from(self.console_offset)
            failure = console.boot_marks(text).failure
            if failure or not self._services.vms.vmms.processes.is_alive(identity):
                causes.append(NotUpError(failure or "the machine ended", text))
                token.cancel(causes[0].reason)

    def _look_at_vmm(
        self, identity: ProcessIdentity, pace: BootPace | None, signs: _SignsOfLife, marks: console.BootMarks, text: str
    ) -> None:
        if signs.condition_is_due():
            self._check_condition(identity, text)
        if pace is None:
            return
        progress = signs.progress(marks, self._services.vms.vmms.processes.cpu_seconds(identity), len(text))
        if reason := stall(pace, progress):
            raise NotUpError(reason, text, doubtful=True)

    def _check_condition(self, identity: ProcessIdentity, text: str) -> None:
        files = self._files
        machine = Machine(
            vm_id=files.directory.name,
            identity=identity,
            run_dir=files.run_dir,
            console_log=files.console_log,
            vmm_log=files.vmm_log,
            log_offset=self.log_offset,
            console_offset=self.console_offset,
        )
        condition = self._driver.condition(machine, self._operation.haste)
        if condition.health is Health.HALTED:
            raise NotUpError(f"{condition.words} while it booted", text)
        if condition.health is Health.BROKEN:
            raise NotUpError(condition.words, text, doubtful=True, broke=True)
        if condition.is_stalled:
            kind = ErrorKind.EXHAUSTED if condition.health is Health.NO_ROOM else ErrorKind.UNAVAILABLE
            raise NotUpError(condition.words, text, kind)


class _SignsOfLife:
    """When the console last grew, by the clock and by the processor time of the VMM."""

    def __init__(self) -> None:
        self._next_look = 0.0
        self._next_question = time.monotonic() + _FIRST_QUESTION_S  # most guests are up by then
        self._length = -1
        self._at = 0.0
        self._cpu_s = 0.0

    def vmm_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _VMM_POLL_S
        return True

    def condition_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._next_question:
            return False
        self._next_question = now + _CONDITION_POLL_S
        return True

    def progress(self, marks: console.BootMarks, cpu_s: float, length: int) -> BootProgress:
        now = time.monotonic()
        if length != self._length:
            self._length, self._at, self._cpu_s = length, now, cpu_s
        return BootProgress(marks, cpu_s, cpu_s - self._cpu_s, now - self._at)
