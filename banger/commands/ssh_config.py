"""``banger ssh-config``: making `ssh NAME.vm` work with the user's OpenSSH, and undoing that."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Annotated

from typer import Context, Option

from banger.commands.openssh import (
    include_line,
    included_paths,
    section,
    serves,
    with_line,
    without_line,
)
from banger.commands.rewriting import locked, read_or_none, replace_file
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout

#: What ``--install`` made that was not there before, and ``--uninstall`` takes away again.
_RECORD = "made.json"


def ssh_config(
    ctx: Context,
    install: Annotated[bool, Option("--install", help="Include it in ~/.ssh/config.")] = False,
    uninstall: Annotated[bool, Option("--uninstall", help="Remove from ~/.ssh/config what --install added.")] = False,
) -> None:
    """Print or install the OpenSSH configuration for `ssh NAME.vm`."""
    session: CliSession = ctx.obj
    if install and uninstall:
        raise BangerError(
            ErrorKind.USAGE, "--install and --uninstall exclude each other", hint="banger ssh-config --help"
        )
    user_config = Path.home() / ".ssh" / "config"
    if uninstall:
        changed = _uninstall(session.layout, user_config)
        session.tell("removed" if changed else f"{user_config} includes nothing of this installation")
        session.show_document({"path": str(user_config), "installed": False}, "")
        return
    suffix, text = _section(session.layout)
    if not install:
        session.show_document({"suffix": suffix, "config": text}, text)
        return
    _install(session.layout, user_config, suffix, text)
    _warn_of_other_home(session, user_config)
    session.tell(f"now type: ssh NAME.{suffix}")
    session.show_document({"path": str(user_config), "installed": True, "suffix": suffix}, f"{user_config}\n")


def _section(layout: Layout) -> tuple[str, str]:
    from banger.client.autostart import banger_command, daemon_environment
    from banger.config import Config
    from banger.core.names import check_dns_suffix

    suffix = check_dns_suffix(Config.load(layout.config_file).text("dns.suffix"))
    text = section(suffix, banger_command(), daemon_environment(), layout.ssh_key, known_hosts_file(layout))
    return suffix, text


def known_hosts_file(layout: Layout) -> Path:
    """Where ssh finds the host keys of VMs that it was led to by name."""
    return layout.ssh_key.parent / "known_hosts"


def _install(layout: Layout, user_config: Path, suffix: str, text: str) -> None:
    """Write our file, then include it: a line that is there always leads somewhere."""
    ours = layout.ssh_key.parent / "config"
    line = include_line(ours)
    made = []
    for directory, new in ((ours.parent, False), (user_config.parent, True)):
        if not directory.is_dir():
            _make_directory(directory)
            made += ["directory"] if new else []
    with locked(user_config.parent):
        before = read_or_none(user_config)
        _check_alone(before or b"", ours, suffix)
        if before is None:
            made.append("config")
        if made:
            replace_file(ours.parent / _RECORD, json.dumps({"path": str(user_config), "made": made}).encode())
        replace_file(ours, text.encode())
        after = with_line(before or b"", line)
        if after != before:
            replace_file(user_config, after)


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BangerError(
            ErrorKind.DENIED,
            f'cannot make "{directory}"',
            subject=str(directory),
            cause=error.strerror or str(error),
            hint=f"ls -ld {directory.parent}",
        ) from error


def _check_alone(user_config: bytes, ours: Path, suffix: str) -> None:
    """Of two installations with the same names, ssh would only ever reach the first."""
    for path in included_paths(user_config):
        if path == ours:
            continue
        try:
            clashes = serves(path.read_text(errors="replace"), suffix)
        except OSError:
            continue  # gone, with its installation
        if clashes:
            raise BangerError(
                ErrorKind.CONFLICT,
                f'names below ".{suffix}" belong to another installation',
                subject=suffix,
                cause=f"~/.ssh/config includes {path}",
                hint="give this one names of its own (dns.suffix), or run banger ssh-config --uninstall there",
            )


def _uninstall(layout: Layout, user_config: Path) -> bool:
    """Take out what was put in; True if that was anything."""
    ours = layout.ssh_key.parent / "config"
    record_path = ours.parent / _RECORD
    made = _made(record_path, user_config)
    changed = ours.exists()
    if user_config.parent.is_dir():
        with locked(user_config.parent):
            before = read_or_none(user_config)
            after = without_line(before or b"", include_line(ours))
            if before is not None and after != before:
                changed = True
                if not after and "config" in made and not user_config.is_symlink():
                    user_config.unlink()
                else:
                    replace_file(user_config, after)
        if "directory" in made and not any(user_config.parent.iterdir()):
            user_config.parent.rmdir()
    for path in (ours, record_path, known_hosts_file(layout)):
        path.unlink(missing_ok=True)
    return changed


def _made(record_path: Path, user_config: Path) -> list[str]:
    try:
        record = json.loads(read_or_none(record_path) or b"{}")
        return list(record["made"]) if record.get("path") == str(user_config) else []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # not ours: then nothing of the user's is taken away


def _warn_of_other_home(session: CliSession, user_config: Path) -> None:
    """OpenSSH reads the home directory of the account, whatever HOME says."""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return
    if Path(home) != user_config.parent.parent:
        session.tell(f"HOME is not {home}, where ssh looks: type ssh -F {user_config} NAME")
