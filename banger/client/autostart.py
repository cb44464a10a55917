"""Starting a daemon when none is running, so that the first `banger run` just works."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from banger.client.connection import connect
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.layout import Layout
from banger.posix.files import open_regular, read_regular

#: Seconds that a daemon may take until it answers: opening the store and the first reconcile included.
START_TIMEOUT_S = 60.0
_POLL_S = 0.02
_RETRY_S = 0.5
_LOG_LINES = 6
_XDG_VARIABLES = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
#: Who one is, where things are, how the network is reached and a registry logged in to. No more: a caller's secrets are
#: none of the daemon's business, nor of the machines that it starts.
_INHERITED = frozenset(
    "PATH HOME USER LOGNAME SHELL LANG LANGUAGE TZ TMPDIR LD_LIBRARY_PATH PYTHONDONTWRITEBYTECODE"
    " http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY FTP_PROXY ALL_PROXY NO_PROXY"
    " SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE DOCKER_CONFIG REGISTRY_AUTH_FILE"
    " DBUS_SESSION_BUS_ADDRESS GNUPGHOME PASSWORD_STORE_DIR AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_CONFIG_FILE"
    " AWS_SHARED_CREDENTIALS_FILE CLOUDSDK_CONFIG GOOGLE_APPLICATION_CREDENTIALS AZURE_CONFIG_DIR".split()
)
_INHERITED_PREFIXES = ("BANGER_", "LC_", "XDG_")
#: Another process holds the lock of this state directory.
_LOST_RACE = EXIT_CODES[ErrorKind.CONFLICT]


def start_daemon(layout: Layout, timeout_s: float = START_TIMEOUT_S) -> None:
    """Start a detached daemon and return once one answers; two callers at once both get the same one.

    Raises:
        BangerError: ``unavailable`` with the daemon's last words, ``denied``, ``timeout``.
    """
    log_size, child = _spawn(layout)
    is_second = False
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        exited = child.poll()
        if _answers(layout.socket):
            return
        if exited == _LOST_RACE:
            is_second = True
            time.sleep(_RETRY_S)  # the winner will answer, or it was stopping and another try will get the lock
            if not _answers(layout.socket):
                _, child = _spawn(layout)
        elif exited is not None:
            raise BangerError(
                ErrorKind.UNAVAILABLE,
                "the banger daemon did not start",
                cause=_last_words(layout.daemon_log, log_size) or f"it exited with status {exited}",
                hint="banger daemon run",
            )
        time.sleep(_POLL_S)
    hint = "banger daemon logs"
    if is_second and (pid := _daemon_of(layout)):
        hint = f"kill {pid}; VMs go on, and the next command starts another one"
    raise BangerError(
        ErrorKind.TIMEOUT,
        f'the banger daemon did not answer at "{layout.socket}" within {timeout_s:g} s',
        cause=_last_words(layout.daemon_log, log_size),
        hint=hint,
    )


def banger_command() -> list[str]:
    """What runs ``banger``: this interpreter with this package, whatever the working directory holds."""
    return [sys.executable, "-P", "-m", "banger"]


def daemon_command() -> list[str]:
    """What runs the daemon."""
    return [*banger_command(), "daemon", "run"]


def daemon_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that a daemon needs to serve the same installation with the same package as this process."""
    env = os.environ if env is None else env
    needed = {name: env[name] for name in ("BANGER_HOME", *_XDG_VARIABLES) if env.get(name)}
    if "BANGER_HOME" in needed:
        needed["BANGER_HOME"] = str(Path(needed["BANGER_HOME"]).absolute())
    package_parent = str(Path(__file__).resolve().parents[2])
    if Path(sys.path[0] or ".").resolve() == Path(package_parent):  # a checkout that is run in place
        needed["PYTHONPATH"] = package_parent
    elif env.get("PYTHONPATH"):
        needed["PYTHONPATH"] = env["PYTHONPATH"]
    return needed


def _clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What of a caller's environment a daemon may have: it outlives the caller and serves others."""
    return {name: value for name, value in env.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)}


def _spawn(layout: Layout) -> tuple[int, subprocess.Popen[bytes]]:
    """Start the process in a session of its own; its log file's size before, and the process."""
    layout.check_trusted()
    try:
        layout.daemon_log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout.check_trusted()  # as make_directories does
        log = open_regular(layout.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
    except OSError as error:
        raise BangerError(
            ErrorKind.DENIED,
            f'cannot write "{layout.daemon_log}"',
            subject=str(layout.daemon_log),
            cause=error.strerror or str(error),
            hint="banger doctor",
        ) from error
    try:
        size = os.fstat(log).st_size
        child = subprocess.Popen(
            [*daemon_command(), "--background"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_clean_environment(os.environ) | daemon_environment(),
            start_new_session=True,
        )
    finally:
        os.close(log)
    return size, child


def _daemon_of(layout: Layout) -> str:
    """The process id that the daemon wrote into its lock file."""
    try:
        pid = read_regular(layout.lock_file).decode(errors="replace").strip()
    except OSError:
        return ""
    return pid if pid.isdecimal() else ""


def _answers(path: Path) -> bool:
    try:
        connect(path).close()
    except BangerError as error:
        if error.kind is ErrorKind.UNAVAILABLE:
            return False
        raise
    return True


def _last_words(log: Path, offset: int) -> str:
    """What the daemon logged since ``offset``: its error report if it made one, else its last lines."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reports = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if not reports:
        return "\n".join(lines[-_LOG_LINES:])
    report = "\n".join(lines[reports[-1] :])
    return report.replace("error: ", "", 1).replace("\ncause: ", "\n")
