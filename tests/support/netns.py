"""Running a piece of a test in a network namespace of its own, where it may have any address."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def why_no_namespace() -> str:
    """The reason to skip, or an empty string."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "iproute2 or util-linux is not installed"
    probe = subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "needs root: a network namespace"


def in_network_namespace(work: Callable[[], T], *addresses: str) -> T:
    """Run ``work`` in a thread that lives in a fresh namespace; threads that it starts live there, too.

    ``addresses`` (``10.0.0.1/24``) are put on an interface ``lan0`` that leads nowhere. The namespace ends with the
    last thread and socket in it.
    """
    result: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            _ip("link", "set", "lo", "up")
            # A pair has a carrier at once; a bridge without ports loses it a moment later, and a packet with it.
            _ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
            _ip("link", "set", "lan1", "up")
            _ip("link", "set", "lan0", "up")
            for address in addresses:
                _ip("address", "add", address, "dev", "lan0", *(["nodad"] if ":" in address else []))
            result.append(work())
        except BaseException as error:  # noqa: BLE001  # it is the caller's
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
