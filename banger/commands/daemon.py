"""``banger daemon``: run, start, stop, status, logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

from typer import Context, Option

from banger.commands.logfile import read_log
from banger.commands.options import FollowFlag, Tail
from banger.commands.session import CliSession
from banger.core.clock import now, parse_rfc3339
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.core.units import format_age

_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.05


def daemon(
    ctx: Context,
    dev: Annotated[bool, Option("--dev", help="Run in the foreground with coloured logs; Ctrl-C stops it.")] = False,
) -> int:
    """The background process that manages VMs."""
    if ctx.invoked_subcommand is not None:
        return 0
    if not dev:
        raise BangerError(ErrorKind.USAGE, "banger daemon needs a command", hint="banger daemon --help")
    return _become_daemon(foreground=True, dev=True)


def run(background: Annotated[bool, Option("--background", hidden=True)] = False) -> int:
    """Run the daemon in the foreground."""
    return _become_daemon(foreground=not background, dev=False)


def _become_daemon(*, foreground: bool, dev: bool) -> int:
    from banger.daemon.main import main

    return main(foreground=foreground, dev=dev)


def start(ctx: Context) -> None:
    """Start the daemon in the background."""
    session: CliSession = ctx.obj
    _show_status(session, session.client.get("/v1/system"))


def stop(ctx: Context) -> None:
    """Stop the daemon; VMs keep running."""
    session: CliSession = ctx.obj
    session.tell("the daemon has stopped" if stop_daemon(session) else "the daemon is not running")
    session.show_document({"running": False}, "")


def stop_daemon(session: CliSession) -> bool:
    """Stop the daemon and wait until its process is gone; False if there was none.

    Raises:
        BangerError: ``timeout``.
    """
    try:
        pid = int(session.running_client.get("/v1/system")["pid"])
        session.running_client.call("POST", "/v1/system/shutdown")
    except BangerError as error:
        if error.kind is not ErrorKind.UNAVAILABLE:
            raise
        return False
    end = time.monotonic() + _STOP_TIMEOUT_S
    while _alive(pid):
        if time.monotonic() > end:
            message = f"the daemon (pid {pid}) still runs after {_STOP_TIMEOUT_S:g} s"
            raise BangerError(ErrorKind.TIMEOUT, message, hint="banger daemon logs")
        time.sleep(_POLL_S)
    return True


def status(ctx: Context) -> int:
    """Show the status of the daemon."""
    session: CliSession = ctx.obj
    try:
        _show_status(session, session.running_client.get("/v1/system"))
    except BangerError as error:
        if error.kind is not ErrorKind.UNAVAILABLE:
            raise
        stopped = {"running": False, "socket": str(session.layout.socket)}
        session.show_document(stopped, "the daemon is not running\n")
        return EXIT_CODES[ErrorKind.UNAVAILABLE]
    return 0


def logs(ctx: Context, follow: FollowFlag = False, tail: Tail = None) -> None:
    """Show the daemon's log."""
    session: CliSession = ctx.obj
    for line in read_log(session.layout.daemon_log, tail, follow=follow):
        session.show_line({"line": line}, line)


def _show_status(session: CliSession, system: dict[str, Any]) -> None:
    started = system.get("started_at")
    up = f", up {format_age(parse_rfc3339(started), now())}" if started else ""
    lines = [
        f"running: pid {system.get('pid')}{up}, version {system.get('version')}",
        f"socket:  {system.get('socket')}",
        f"data:    {system.get('data_dir')}",
        f"machine: {system.get('vmm')} with {system.get('accelerator')}",
        f"names:   {', '.join(system.get('dns') or ['no resolver'])}",
        f"VMs:     {_count(system.get('vms'))}",
    ]
    session.show_document({"running": True, **system}, "\n".join(lines) + "\n")


def _count(vms: Any) -> str:
    return f"{vms.get('running')} running of {vms.get('total')}" if isinstance(vms, dict) else str(vms)


def _alive(pid: int) -> bool:
    """True while the process exists and has not ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
