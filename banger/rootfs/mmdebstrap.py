"""Running mmdebstrap: its tar as a stream, its messages as notes, and no process left, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import BufferedReader
from typing import cast

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError
from banger.posix.programs import require_program, run_program, search_path

#: mmdebstrap removes its work directory when it is told to end; that is what this time is for.
_GRACE_S = 5.0
_KEPT_LINES = 30
_LONGEST_LINE = 300
_PASSED_ON = "HOME http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY TMPDIR".split()


class Mmdebstrap:
    """One run. Use as a context manager: leaving it ends whatever still runs."""

    def __init__(
        self,
        arguments: Sequence[str],
        token: CancelToken,
        note: Callable[[str], None],
        environment: Mapping[str, str],
    ) -> None:
        """Start it in a session of its own.

        Args:
            arguments: everything after the program's name; the target must be ``-``.
            token: when it is set, the whole process group is told to end, and killed if it does not.
            note: gets every line it prints about its progress.
            environment: added to the few variables that are passed on.
        """
        self._token = token
        self._note = note
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._timer = threading.Timer(_GRACE_S, self._signal, [signal.SIGKILL])
        self._timer.daemon = True
        self._child = subprocess.Popen(
            [*_own_mounts(), require_program("mmdebstrap"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_environment(), **environment},
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="mmdebstrap-stderr", daemon=True)
        self._listener.start()
        self._forget = token.on_cancel(self._end)

    @property
    def tar(self) -> BufferedReader:
        """The archive it writes when everything is installed; empty if it failed."""
        return cast("BufferedReader", self._child.stdout)

    @property
    def last_words(self) -> str:
        """What went wrong, in its own words."""
        errors = [line.removeprefix("E: ") for line in self._lines if line.startswith("E: ")]
        return "; ".join(errors[-3:] or list(self._lines)[-3:])

    @property
    def disk_full(self) -> bool:
        """True if it ran out of space."""
        return any(os.strerror(28) in line for line in self._lines)

    def finish(self) -> int:
        """Read the archive to its end and wait; the exit status."""
        with suppress(ValueError, OSError):
            while self.tar.read(1 << 16):
                self._token.raise_if_cancelled()
        return self._reap()

    def __enter__(self) -> Mmdebstrap:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        if self._child.returncode is None:
            self._end()
            self.tar.close()
            self._reap()
        self._timer.cancel()
        self.tar.close()
        if self._child.stderr is not None:
            self._child.stderr.close()

    def _reap(self) -> int:
        # Not collected before its group is empty: until then nobody else can get its number, and with it our signal.
        os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)
        self._signal(signal.SIGKILL)
        status = self._child.wait()
        self._listener.join(_GRACE_S)
        return status

    def _listen(self) -> None:
        stream = self._child.stderr
        if stream is None:
            return
        for raw in stream:
            line = raw.decode(errors="replace").strip()[:_LONGEST_LINE]
            self._lines.append(line)
            if line.startswith("I: ") and line.endswith("..."):
                self._note(line.removeprefix("I: "))

    def _end(self) -> None:
        self._signal(signal.SIGTERM)
        with suppress(RuntimeError):  # it is ticking already
            self._timer.start()

    def _signal(self, number: int) -> None:
        if self._child.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)


def _own_mounts() -> list[str]:
    """As root it mounts /proc and others in its work directory; in a namespace of its own they can't outlive it.

    Root in a container may lack the right; mmdebstrap then does without mounts, too.
    """
    prefix = ["unshare", "--mount", "--propagation=private", "--"]
    if os.geteuid() != 0:
        return []
    try:
        allowed = run_program([*prefix, "true"], timeout_s=_GRACE_S).status == 0
    except (OSError, BangerError):
        allowed = False
    return prefix if allowed else []


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    fixed = {"PATH": search_path(), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return {**_apt_proxies(), **passed_on, **fixed}


def _apt_proxies() -> dict[str, str]:
    """The proxies of the host's apt. As variables they serve the bootstrap without becoming part of the image."""
    try:
        done = run_program(
            ["apt-config", "dump", "--format", "%f %v%n", "Acquire::http::Proxy", "Acquire::https::Proxy"],
            timeout_s=_GRACE_S,
        )
    except (OSError, BangerError):
        return {}
    pairs = [line.split() for line in done.text.splitlines()]
    return {
        f"{pair[0].split('::')[1].lower()}_proxy": pair[1]
        for pair in pairs
        if len(pair) == 2 and pair[0].endswith("::Proxy") and pair[1] != "DIRECT"
    }
