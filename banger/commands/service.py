"""``banger daemon install`` and ``uninstall``: the daemon as a systemd service."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

from typer import Context, Option

from banger.client.autostart import daemon_command, daemon_environment
from banger.commands.daemon import stop_daemon
from banger.commands.session import CliSession
from banger.commands.systemd_unit import UNIT_NAME, render_unit
from banger.core.errors import BangerError, ErrorKind

_SYSTEM_UNITS = Path("/etc/systemd/system")
_SYSTEMD_RUNS = Path("/run/systemd/system")  # sd_booted(3)

SystemFlag = Annotated[
    bool | None, Option("--system/--user", help="For the whole system (default for root) or only for you.")
]


def install(ctx: Context, *, system: SystemFlag = None) -> None:
    """Install the daemon as a systemd service."""
    session: CliSession = ctx.obj
    is_system = _is_system(system, "install")
    path = _unit_path(is_system=is_system)
    assignments = [f"{name}={value}" for name, value in daemon_environment().items() if name != "XDG_RUNTIME_DIR"]
    _write(path, render_unit(daemon_command(), is_system=is_system, environment=assignments))
    commands = [_systemctl(is_system, "daemon-reload"), _systemctl(is_system, "enable", "--now", UNIT_NAME)]
    if _can_run_systemctl():
        stop_daemon(session)
        for command in commands:
            _run(command)
        if not is_system:
            session.tell("to keep the daemon and its VMs when you log out: loginctl enable-linger")
    else:
        session.tell("systemd does not run here; where it does, type:")
        for command in commands:
            session.tell(f"  {' '.join(command)}")
    session.show_document({"unit": str(path), "enabled": _can_run_systemctl()}, f"{path}\n")


def uninstall(ctx: Context, *, system: SystemFlag = None) -> None:
    """Remove the daemon's systemd service."""
    session: CliSession = ctx.obj
    is_system = _is_system(system, "uninstall")
    path = _unit_path(is_system=is_system)
    if not path.exists():
        session.tell(f"there is no unit at {path}")
    elif _can_run_systemctl():
        _run(_systemctl(is_system, "disable", "--now", UNIT_NAME))
    path.unlink(missing_ok=True)
    if _can_run_systemctl():
        _run(_systemctl(is_system, "daemon-reload"))
    session.show_document({"unit": str(path), "enabled": False}, "")


def _is_system(wish: bool | None, verb: str) -> bool:
    is_root = os.geteuid() == 0
    if wish and not is_root:
        message = "only root can change the system's units"
        raise BangerError(ErrorKind.DENIED, message, hint=f"sudo banger daemon {verb} --system")
    return is_root if wish is None else wish


def _unit_path(*, is_system: bool) -> Path:
    if is_system:
        return _SYSTEM_UNITS / UNIT_NAME
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user" / UNIT_NAME


def _write(path: Path, text: str) -> None:
    """Everybody may read it and nobody else write it, whatever the caller's umask: systemd runs what it says."""
    umask = os.umask(0o022)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        cause = error.strerror or str(error)
        raise BangerError(ErrorKind.DENIED, f'cannot write "{path}"', subject=str(path), cause=cause) from error
    finally:
        os.umask(umask)


def _can_run_systemctl() -> bool:
    return _SYSTEMD_RUNS.is_dir() and shutil.which("systemctl") is not None


def _systemctl(is_system: bool, *words: str) -> list[str]:
    return ["systemctl", *([] if is_system else ["--user"]), *words]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'"{" ".join(command)}" failed',
            cause=done.stderr.strip() or f"status {done.returncode}",
            hint=f"journalctl --unit {UNIT_NAME}",
        )
