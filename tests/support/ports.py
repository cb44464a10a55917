"""Free TCP ports, and forwarders of published ones without a guest."""

from __future__ import annotations

import socket
from pathlib import Path

from banger.core.models import Vm
from banger.forwarding.forwarders import Reach


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unreachable(vm: Vm) -> Reach:
    """A VM whose guest has no agent."""
    return Reach(Path("/nonexistent/gp.sock"), 0, Path("/dev/null"))
