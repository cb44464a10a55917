"""Connecting this process's terminal, standard streams and signals to a command in a guest.

One thread, one ``poll``. Nothing is read that could not be passed on, so memory stays bounded whoever is slow.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import termios
import time
import tty as tty_modes
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from banger.client import TICK_S
from banger.client.channel import HIGH_WATER, ClientFrameChannel, exit_of
from banger.commands import signals
from banger.core.errors import BangerError, ErrorKind
from banger.core.frames import FrameType
from banger.render.streams import write_output

_READ_BYTES = 64 * 1024
#: The same wish to end within so many seconds of the first hangs up instead of being passed on. A program may heed INT
#: and go on; nobody says TERM twice to one that is to go on.
_IMPATIENCE_S: Mapping[int, float] = {signal.SIGINT: 2.0, signal.SIGQUIT: 2.0, signal.SIGTERM: float("inf")}
#: The same signal again within so many seconds is the same wish: timeout(1) tells its child and then its whole group.
_SAME_WISH_S = 0.1
#: How long a command may take to heed TERM, in seconds; as long as ``docker stop`` waits.
KILL_AFTER_S = 10.0
#: Ctrl-D, ``VEOF`` of a terminal that nobody changed.
_END_KEY = b"\x04"
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL
_WRITABLE = select.POLLOUT | select.POLLHUP | select.POLLERR | select.POLLNVAL


def terminal_size() -> dict[str, int]:
    """``{"rows", "columns"}`` of our terminal, as in RESIZE frames."""
    columns, rows = 80, 24
    with suppress(OSError):
        columns, rows = os.get_terminal_size(0)
    return {"rows": rows or 24, "columns": columns or 80}


def _is_null(descriptor: int) -> bool:
    """It is ``/dev/null``, where nothing will ever come from."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(1, 3)


@dataclass(frozen=True, slots=True)
class Manner:
    """How our side of a session behaves.

    Attributes:
        tty: the command has a terminal: ours goes into raw mode while it runs.
        stdin: pass standard input on; otherwise it is not touched, and the command's is empty.
        kill_after_s: hang up, which kills the command, if it still runs so long after TERM; 0 waits forever.
    """

    tty: bool
    stdin: bool = True
    kill_after_s: float = KILL_AFTER_S


class Relay:
    """One session with a command in a guest.

    Attributes:
        started: the payload of STARTED; ``None`` as long as the command does not run.
    """

    def __init__(
        self,
        channel: ClientFrameChannel,
        progress: Callable[[Mapping[str, Any] | None], None],
        close_progress: Callable[[], None],
        manner: Manner,
    ) -> None:
        """Prepare; :meth:`run` does it.

        Args:
            channel: carries the session.
            progress: gets the events that come before the command runs.
            close_progress: makes room for the command's own output.
            manner: how.
        """
        self._channel = channel
        self._progress = progress
        self._close_progress = close_progress
        self._tty = manner.tty
        self._stdin_open = manner.stdin and not _is_null(0)
        if not self._stdin_open and not self._tty:  # told before the command begins, which then gets no pipe to read
            channel.put(FrameType.STDIN_EOF)
        self._line_open = False
        self._sinks = {FrameType.STDOUT: _Sink(1), FrameType.STDERR: _Sink(2)}
        self._exit: bytes | None = None
        self._saved_terminal: list[Any] | None = None
        self._kill_after_s = manner.kill_after_s
        self._had_terminal = _has_terminal()
        self._last_ending: dict[int, float] = {}
        self._early_signals: list[int] = []
        self.started: Mapping[str, Any] | None = None

    def run(self) -> int:
        """Pass everything on until the command ends; its exit code, or 128 + the signal that made us hang up."""
        with signals.Inbox() as inbox:
            try:
                while self._exit is None:
                    for number in self._turn(inbox):
                        if self._on_signal(number):
                            return 128 + number
                    if self._patience_s() == 0 and self._exit is None:
                        return self._give_up()
                for sink in self._sinks.values():
                    sink.drain()
            finally:
                self._restore_terminal()
                self._close_progress()
        return int(exit_of(self._exit)["code"])

    def _turn(self, inbox: signals.Inbox) -> list[int]:
        """Wait until something can move, and move it; the signals that came."""
        poll = select.poll()
        poll.register(inbox, select.POLLIN)
        poll.register(self._channel, self._channel_interest())
        if self._stdin_open and self.started is not None and self._channel.takes_stdin:
            poll.register(0, select.POLLIN)
        full = [sink for sink in self._sinks.values() if sink.pending]
        for sink in full:
            poll.register(sink.descriptor, select.POLLOUT)
        ready = dict(poll.poll(_milliseconds(self._patience_s() if self.started is not None else TICK_S)))
        if not ready and self.started is None:
            self._progress(None)
        if ready.get(0, 0) & _READABLE:
            self._read_stdin()
        for sink in full:
            if ready.get(sink.descriptor, 0) & _WRITABLE:
                sink.write_some()
        self._serve_channel(ready.get(self._channel.fileno(), 0))
        return inbox.take() if inbox.fileno() in ready else []

    def _channel_interest(self) -> int:
        backed_up = any(len(sink.pending) > HIGH_WATER for sink in self._sinks.values())
        return (0 if backed_up else select.POLLIN) | (select.POLLOUT if self._channel.unsent else 0)

    def _serve_channel(self, ready: int) -> None:
        if ready & select.POLLOUT:
            self._channel.flush()
        if not ready & _READABLE:
            return
        for kind, payload in self._channel.take():
            self._on_frame(kind, payload)
        if self._channel.ended and self._exit is None:
            message = "the daemon ended the session without saying how the command ended"
            raise BangerError(ErrorKind.UNKNOWN_OUTCOME, message, hint="banger daemon logs")

    def _on_frame(self, kind: FrameType, payload: bytes) -> None:
        if kind is FrameType.EVENT:
            self._progress(json.loads(payload))
        elif kind is FrameType.STARTED:
            self._start(json.loads(payload))
        elif kind is FrameType.EXIT:
            self._exit = payload
        elif kind in self._sinks:
            self._sinks[kind].pending += payload

    def _start(self, started: Mapping[str, Any]) -> None:
        """The command runs: from here on our streams are its streams."""
        self.started = started
        self._close_progress()
        self._tell_size()
        self._take_terminal()
        if not self._stdin_open and self._tty:
            self._end_input()
        for number in self._early_signals:
            self._pass_on(number)

    def _take_terminal(self) -> None:
        if self._tty and self._stdin_open and os.isatty(0):
            self._saved_terminal = termios.tcgetattr(0)
            tty_modes.setraw(0, termios.TCSADRAIN)  # what was typed ahead is for the guest

    def _restore_terminal(self) -> None:
        if self._saved_terminal is not None:
            with suppress(termios.error):  # the terminal may be gone
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved_terminal)
            self._saved_terminal = None

    def _read_stdin(self) -> None:
        try:
            data = os.read(0, _READ_BYTES)
        except OSError:  # no terminal any more, or not ours to read
            data = b""
        if data:
            self._line_open = not data.endswith(b"\n")
            self._channel.put(FrameType.STDIN, data)
        else:
            self._stdin_open = False
            self._end_input()

    def _end_input(self) -> None:
        """Nothing more comes. A terminal is told by its key for that, once more behind an open line.

        Ending the stream itself would end the terminal too, and hang up on its command.
        """
        if self._tty:
            self._channel.put(FrameType.STDIN, _END_KEY * (2 if self._line_open else 1))
        else:
            self._channel.put(FrameType.STDIN_EOF)

    def _on_signal(self, number: int) -> bool:
        """Pass a signal on to the command; True if it is for us: hang up."""
        if number == signal.SIGWINCH:
            self._tell_size()
        elif number == signal.SIGTSTP:
            self._stand_still()
        elif time.monotonic() - self._last_ending.get(number, -_SAME_WISH_S) < _SAME_WISH_S:
            return False
        elif number in signals.PASSED_ON and not self._is_for_us(number):
            self._pass_on(number)
        else:
            return number != signal.SIGCONT
        return False

    def _is_for_us(self, number: int) -> bool:
        """Before the command runs, when our terminal is gone, and when somebody is impatient with the command."""
        if number in signals.ENDING:
            now = time.monotonic()
            before = self._last_ending.get(number)
            self._last_ending[number] = now
            return self.started is None or (before is not None and now - before < _IMPATIENCE_S[number])
        gone = (self._saved_terminal is not None and not os.isatty(0)) or (self._had_terminal and not _has_terminal())
        return number == signal.SIGHUP and (self.started is None or gone)

    def _patience_s(self) -> float | None:
        """How long the command may still take to heed TERM; ``None`` forever."""
        asked_at = self._last_ending.get(signal.SIGTERM)
        if asked_at is None or not self._kill_after_s:
            return None
        return max(0.0, asked_at + self._kill_after_s - time.monotonic())

    def _give_up(self) -> int:
        self._restore_terminal()
        sys.stderr.write(f"the command still ran {self._kill_after_s:g} s after TERM, and is killed\n")
        return 128 + signal.SIGTERM

    def _pass_on(self, number: int) -> None:
        if self.started is None:
            self._early_signals.append(number)
        else:
            self._channel.put(FrameType.SIGNAL, signal.Signals(number).name.removeprefix("SIG").encode())

    def _tell_size(self) -> None:
        if self._tty and self.started is not None:
            self._channel.put_json(FrameType.RESIZE, terminal_size())

    def _stand_still(self) -> None:
        """Stop as the shell's job that we are; the command in the guest goes on until its output has no room."""
        self._restore_terminal()
        self._close_progress()
        signals.stop_here()
        if self.started is not None:
            self._take_terminal()
            self._tell_size()


class _Sink:
    """One of our output streams, written without ever blocking the loop for long."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pending = bytearray()
        # A pipe or terminal that polls as writable takes this much at once without blocking; a file takes anything.
        mode = os.fstat(descriptor).st_mode
        self._step = _READ_BYTES if stat.S_ISREG(mode) else select.PIPE_BUF
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write_some(self) -> None:
        """Write what goes without blocking. For standard output, raises what :func:`write_output` does."""
        try:
            while self.pending and self._poll.poll(0):
                del self.pending[: self._write(self.pending[: self._step])]
        except BlockingIOError:
            return
        except OSError:
            if self.descriptor == 1:
                raise
            self.pending.clear()  # nobody listens to our errors: no reason to stop the command

    def _write(self, data: bytearray) -> int:
        return write_output(1, data) if self.descriptor == 1 else os.write(self.descriptor, data)

    def drain(self) -> None:
        """Write all that is left, waiting for the reader."""
        while self.pending:
            self._poll.poll()
            self.write_some()


def _milliseconds(seconds: float | None) -> int | None:
    """For ``poll``, which would come too early otherwise."""
    return None if seconds is None else int(seconds * 1000) + 1


def _has_terminal() -> bool:
    """True while this process has a controlling terminal: one that goes away takes its programs with it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def is_interactive() -> bool:
    """Standard input and output are both terminals: the guest's command should have one too."""
    return sys.stdin.isatty() and sys.stdout.isatty()
