"""Moving the state of machines, in the words of QEMU's monitor (QEMU: ``qapi/migration.json``).

State goes over a socket that both sides are handed by their monitors: no path is needed, and a QEMU in a jail takes it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from banger.vmm.qemu.qmp import QmpError, QmpSession

#: What memory is copied for, and what comes after it.
COPYING = frozenset({"none", "setup", "active", "wait-unplug"})
STANDING = "pre-switchover"
FINISHING = frozenset({STANDING, "device"})
COMPLETED = "completed"
_UNFINISHED = (COPYING | FINISHING | {"cancelling"}) - {"none"}
_POLL_S = 0.05
#: More than a socket carries, and the longest that QEMU can be told, in milliseconds.
_NO_LIMIT, _LONGEST_MS = 1 << 40, 2_000_000


def configure(session: QmpSession, **capabilities: bool) -> None:
    """Switch capabilities, ``pause_before_switchover`` for example, and have nothing take longer than it has to."""
    wanted = [{"capability": name.replace("_", "-"), "state": state} for name, state in capabilities.items()]
    session.execute("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}, *wanted]})
    session.execute("migrate-set-parameters", {"max-bandwidth": _NO_LIMIT})


def let_stand(session: QmpSession, longest_ms: int = _LONGEST_MS) -> None:
    """How long the machine may stand still in the end, as far as QEMU can guess."""
    session.execute("migrate-set-parameters", {"downtime-limit": longest_ms})


def send(session: QmpSession, to: socket.socket) -> None:
    """Begin to send a machine's state."""
    session.execute("getfd", {"fdname": "state"}, descriptor=to.fileno())
    session.execute("migrate", {"uri": "fd:state"})


def receive(session: QmpSession, source: socket.socket) -> None:
    """Begin to take over a machine's state; QEMU ends if it is not for it."""
    session.execute("getfd", {"fdname": "state"}, descriptor=source.fileno())
    session.execute("migrate-incoming", {"uri": "fd:state"})


def state(session: QmpSession) -> Mapping[str, Any]:
    """How far it is; ``status`` is always there."""
    return {"status": "none", **session.execute("query-migrate")}


def wait_received(session: QmpSession) -> None:
    """Until a machine has taken over its state, and stands still."""
    while session.execute("query-status")["status"] == "inmigrate":
        session.wait_for_event(_POLL_S)


def wait_sent(session: QmpSession) -> None:
    """Until all is sent. Raises :class:`QmpError` if it is not."""
    while (found := state(session))["status"] in COPYING | FINISHING:
        session.wait_for_event(_POLL_S)
    expect(found, COMPLETED)


def expect(found: Mapping[str, Any], status: str) -> None:
    """Raise :class:`QmpError` for another status."""
    if found["status"] != status:
        raise QmpError(f"the migration is {found['status']}: {found.get('error-desc', 'no reason is told')}")


def give_up(session: QmpSession) -> None:
    """Send nothing more; a machine that stood still only for this runs again."""
    while state(session)["status"] in _UNFINISHED:
        session.execute("migrate_cancel")
        session.wait_for_event(_POLL_S)
