"""banger: disposable Linux machines on your own host."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from banger.core.errors import BangerError, ErrorKind
    from banger.core.wire.port_forward import PortForward
    from banger.sdk import Banger, Completed, Machine, machine, run

__version__ = "0.1.0"
__all__ = ["Banger", "BangerError", "Completed", "ErrorKind", "Machine", "PortForward", "__version__", "machine", "run"]

_PUBLIC = {
    "Banger": "banger.sdk",
    "BangerError": "banger.core.errors",
    "Completed": "banger.sdk",
    "ErrorKind": "banger.core.errors",
    "Machine": "banger.sdk",
    "PortForward": "banger.core.wire.port_forward",
    "machine": "banger.sdk",
    "run": "banger.sdk",
}


def __getattr__(name: str) -> object:
    """Load the SDK when it is used: the command imports this package too, and has no need of it."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
