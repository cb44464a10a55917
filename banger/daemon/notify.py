"""The systemd notification protocol (sd_notify(3)): readiness, stopping, watchdog. A no-op elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(message: str, env: Mapping[str, str] | None = None) -> bool:
    """Send ``READY=1``, ``STOPPING=1``, ``WATCHDOG=1`` …; False if no service manager listens."""
    address = (os.environ if env is None else env).get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(message.encode(), address)
    return True


def watchdog_interval_s(env: Mapping[str, str] | None = None, pid: int | None = None) -> float | None:
    """Half of the watchdog's patience, in seconds, or None if it does not watch this process."""
    env = os.environ if env is None else env
    patience_us = env.get("WATCHDOG_USEC", "")
    watched = env.get("WATCHDOG_PID", "")
    if not patience_us.isdigit() or (watched and watched != str(os.getpid() if pid is None else pid)):
        return None
    return int(patience_us) / 1_000_000 / 2
