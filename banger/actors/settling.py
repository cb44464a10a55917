"""Waiting until a guest that has booted has come to rest."""

from __future__ import annotations

from banger.actors.guest_commands import run_to_end
from banger.actors.services import VmServices
from banger.core.cancel import Deadline
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.models import Vm
from banger.core.operation import Operation
from banger.core.ports import RunningGuest

#: A guest that takes longer never comes to rest.
LIMIT_S = 300.0
_LOOK_S = 1.5
_ANSWER_S = 60.0
#: Exit code 0 once banger's own init has set the clock (for that it has eight seconds) and made its note, and the
#: image's has started everything (systemctl(1), openrc(8): a mark is there while a runlevel is being entered).
_IS_SETTLED = """
read -r up _ </proc/uptime
[ "${up%.*}" -ge 8 ] && [ ! -e /run/banger/noting ] || exit 1
if [ -d /run/systemd/system ]; then
    case $(systemctl is-system-running 2>/dev/null) in
    running | degraded) ;;
    *) exit 1 ;;
    esac
elif [ -d /run/openrc ]; then
    read -r level 2>/dev/null </run/openrc/softlevel
    [ "$level" = default ] && [ ! -e /run/openrc/rc.starting ] || exit 1
fi
/run/banger/bin/sync
"""


def wait_settled(services: VmServices, vm: Vm, operation: Operation) -> None:
    """Return once there is nothing more to start in a guest, and all of it is on its disk.

    Raises:
        BangerError: ``timeout`` if that takes too long; ``cancelled``, and what asking a guest raises.
    """
    limit = Deadline.after(LIMIT_S)
    with operation.step("wait until it has settled"):
        while not services.guests.ask(vm, _is_settled, _ANSWER_S, operation.token):
            if limit.expired:
                message = f"the guest has not come to rest within {LIMIT_S:g} s"
                raise BangerError(ErrorKind.TIMEOUT, message, subject=vm.name)
            operation.haste.wait(_LOOK_S)
            operation.haste.raise_if_cancelled()


async def _is_settled(guest: RunningGuest) -> bool:
    request = ExecRequest(("/run/banger/bin/sh", "-c", _IS_SETTLED), user="root", has_input=False)
    code, _ = await run_to_end(await guest.exec(request))
    return code == 0
