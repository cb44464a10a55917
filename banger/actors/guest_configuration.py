"""What a guest that went on from a template is told of its VM's spec: all that others are told as they boot."""

from __future__ import annotations

from functools import partial

from banger.actors.guest_commands import run_to_end
from banger.actors.services import VmServices
from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.exec import ExecRequest
from banger.core.guest_command import environment_script, exec_command
from banger.core.models import Image, Vm
from banger.core.operation import Operation
from banger.core.ports import RunningGuest

_LIMIT_S = 60.0
_TOOLBOX_SHELL = "/run/banger/bin/sh"
#: Its input is the environment of logins and of the VM's own command; its arguments, directories that are to be there.
_CONFIGURE = """
bin=/run/banger/bin file=/run/banger/etc/environment
(umask 077; $bin/busybox cat >$file.new) && $bin/mv $file.new $file || exit
for directory; do
    [ -d "$directory" ] || $bin/mkdir -p "$directory"
done
"""
#: As bin/start of the toolbox has it started: with an environment of its own, nobody's child, and the console.
_COMMAND = """
bin=/run/banger/bin
exec $bin/env -i HOME=/ TERM=linux PATH=$bin $bin/setsid $bin/setsid $bin/enter -c "$1" </dev/null >/dev/console 2>&1
"""


def configure_guest(services: VmServices, vm: Vm, image: Image, operation: Operation, token: CancelToken) -> None:
    """Tell it what the spec says besides, if it says anything.

    Raises:
        BangerError: ``unavailable`` if it cannot be told; what asking a guest raises.
    """
    workdir = vm.spec.workdir
    directories = (workdir,) if workdir.startswith("/") and workdir.isprintable() else ()
    if not (vm.spec.env or directories):
        return
    environment = environment_script((*image.config.env, *vm.spec.env))
    with operation.step("configure guest"):
        work = partial(_run, argv=(_CONFIGURE, "configure", *directories), given=environment)
        services.guests.ask(vm, work, operation.deadline.at_most(_LIMIT_S), token)


def run_boot_command(
    services: VmServices, vm: Vm, image: Image, command: tuple[str, ...], operation: Operation
) -> None:
    """Have it start the command that others start with every boot; nobody waits for that. Raises as above."""
    user, workdir = vm.spec.user or image.config.user or "root", vm.spec.workdir or image.config.workdir
    line = exec_command(ExecRequest(command, user=user, workdir=workdir))
    with operation.step("start command"):
        work = partial(_run, argv=(_COMMAND, "command", line))
        services.guests.ask(vm, work, operation.deadline.at_most(_LIMIT_S), operation.haste)


async def _run(guest: RunningGuest, argv: tuple[str, ...], given: bytes = b"") -> None:
    request = ExecRequest((_TOOLBOX_SHELL, "-c", *argv), user="root", has_input=bool(given))
    code, words = await run_to_end(await guest.exec(request), given)
    if code:
        raise BangerError(ErrorKind.UNAVAILABLE, "the guest cannot be configured", cause=words or f"exit code {code}")
