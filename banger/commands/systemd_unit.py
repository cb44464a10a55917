"""The daemon's systemd unit file as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

UNIT_NAME = "banger.service"
#: Seconds without a sign of life after which systemd restarts the daemon; VMs go on meanwhile.
WATCHDOG_S = 60
#: Long enough for running work to be given up in order (``daemon.shutdown_timeout_s`` and some).
_STOP_S = 60

#: What the system's daemon can do without. VMs inherit all of it and outlive the daemon, so nothing here may need a
#: mount namespace, forbid writable code (emulation makes some) or close a device. A user's manager could not apply it
#: without also forbidding ``newuidmap``, which making images without root needs.
_SYSTEM_HARDENING = """\
KeyringMode=private
LockPersonality=yes
NoNewPrivileges=yes
RestrictRealtime=yes
"""


def render_unit(command: Sequence[str], *, is_system: bool, environment: Sequence[str] = ()) -> str:
    """The unit file.

    VMs are children that outlive the daemon: ``KillMode=process`` ends the daemon alone, and the scope of its cgroup
    stays as long as a VM is in it.

    Args:
        command: how to run the daemon in the foreground; the program as an absolute path.
        is_system: for the system's manager; else for a user's.
        environment: ``NAME=value`` assignments that the daemon needs.
    """
    target = "multi-user.target" if is_system else "default.target"
    ordering = "Wants=network-online.target\nAfter=network-online.target local-fs.target\n" if is_system else ""
    assignments = "".join(f"Environment={_quoted(assignment)}\n" for assignment in environment)
    words = (_quoted(word).replace("$", "$$") for word in command)
    return f"""\
[Unit]
Description=banger: disposable Linux machines
{ordering}StartLimitIntervalSec=120
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={" ".join(words)}
{assignments}Restart=on-failure
RestartSec=1
WatchdogSec={WATCHDOG_S}
TimeoutStopSec={_STOP_S}
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=65536
OOMPolicy=continue
UMask=0077
{_SYSTEM_HARDENING if is_system else ""}
[Install]
WantedBy={target}
"""


def _quoted(word: str) -> str:
    """One word as systemd.syntax(7) reads it: ``%`` doubled, quoted where needed."""
    escaped = word.replace("%", "%%")
    if escaped and not any(c in escaped for c in " \t\"'\\;#"):
        return escaped
    body = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{body}"'
