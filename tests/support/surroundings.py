"""What whoever starts the tests may have set, put right: no outcome depends on it, nor on the files of their home."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import MutableMapping
from pathlib import Path

#: How things look, what tools do by themselves, and whose settings they read. Proxies stay: packages may come by them.
_DROPPED = frozenset(
    """
    LANG LANGUAGE COLUMNS LINES TERM COLORTERM NO_COLOR FORCE_COLOR CLICOLOR CLICOLOR_FORCE TTY_COMPATIBLE TTY_INTERACTIVE
    TAR_OPTIONS GZIP ZSTD_CLEVEL XZ_OPT POSIXLY_CORRECT CDPATH BASH_ENV ENV MAKEFLAGS MFLAGS MAKELEVEL
    DOCKER_CONFIG REGISTRY_AUTH_FILE NETRC SSH_AUTH_SOCK SSH_ASKPASS DISPLAY
    XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_HOME XDG_DATA_DIRS XDG_CACHE_HOME XDG_STATE_HOME
    PYTHONDONTWRITEBYTECODE
    NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS LISTEN_PID INVOCATION_ID JOURNAL_STREAM
    """.split()
)
_OPEN_FILES = 4096
_LOOPBACK = "127.0.0.1,localhost,::1"


def settle(home: Path) -> None:
    """Change this process, and what it will start, for good. ``home`` is an empty directory."""
    hear_signals()
    sys.dont_write_bytecode = False  # what pytest makes of the tests takes longer to make than many a test
    settle_environment(os.environ, home)
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def hear_signals() -> None:
    """Undo what ``nohup``, a shell's ``&`` and some supervisors leave their children with.

    An ignored signal stays so in every child, whatever the child expects, and Python then does not raise
    ``KeyboardInterrupt``. A handler does not: this process goes on ignoring it, and its children begin anew.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # those, Python ignores, and restores
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)


def settle_environment(environment: MutableMapping[str, str], home: Path) -> None:
    """The variables."""
    for name in [name for name in environment if name in _DROPPED or name.startswith("LC_")]:
        del environment[name]
    environment |= {"LC_ALL": "C.UTF-8", "HOME": str(home)}
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = ",".join(filter(None, [environment.get(name), _LOOPBACK]))
