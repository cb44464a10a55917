"""``run`` and ``exec``: a command in a guest, as if it ran here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from typer import Argument, Context, Option

from banger.client import path_of
from banger.client.channel import FrameChannel
from banger.commands import spec as specs
from banger.commands.options import VmArgument
from banger.commands.relay import Relay, is_interactive, terminal_size
from banger.commands.session import Session
from banger.commands.trailing import TrailingCommand
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import parse_duration

_NOT_RUN = 125
_KEEP_THEIR_CODE = frozenset({ErrorKind.USAGE, ErrorKind.CANCELLED})

Command = Annotated[list[str] | None, Argument(metavar="[--] COMMAND...", help="What to run in it.")]
Tty = Annotated[
    bool | None, Option("--tty/--no-tty", "-t", help="Give it a terminal; by default, if there is one here.")
]
RunTimeout = Annotated[str, Option("--timeout", metavar="TIME", help="End the command after so long: 90s, 5m.")]


class NotRunError(BangerError):
    """banger failed before the command could run, which must not look like a failure of the command."""

    @property
    def exit_code(self) -> int:
        """125, as every tool that runs other commands has it; but what was typed wrong is still that."""
        return super().exit_code if self.kind in _KEEP_THEIR_CODE else _NOT_RUN


def run(
    ctx: Context,
    image: specs.ImageArgument = "",
    command: Command = None,
    *,
    name: specs.Name = "",
    cpus: specs.Cpus = None,
    memory: specs.Memory = "",
    disk: specs.Disk = "",
    kernel: specs.Kernel = "",
    env: specs.Env = None,
    user: specs.User = "",
    workdir: specs.Workdir = "",
    publish: specs.Publish = None,
    init: specs.Init = "auto",
    network: specs.Network = "",
    machine: specs.Machine = "",
    accelerator: specs.Accelerator = "",
    label: specs.Labels = None,
    egress: specs.Egress = "",
    storage: specs.Storage = "",
    home: specs.Home = "",
    home_size: specs.HomeSize = "",
    ttl: specs.Ttl = "",
    idle: specs.Idle = "",
    rm: Annotated[bool, Option("--rm", help="Delete the VM afterwards; so it is unless named or detached.")] = False,
    keep: Annotated[bool, Option("--keep", help="Leave the VM running afterwards.")] = False,
    detach: Annotated[bool, Option("--detach", "-d", help="Leave it running; print its name.")] = False,
    timeout: RunTimeout = "",
    tty: Tty = None,
) -> int:
    """Run a command in a fresh VM; ends as the command ends."""
    session: Session = ctx.obj
    if rm and keep:
        raise BangerError(ErrorKind.USAGE, "--rm and --keep exclude each other")
    spec = specs.build_spec(
        session.layout, image=image, cpus=cpus, memory=memory, disk=disk, kernel=kernel, env=env, user=user,
        workdir=workdir, publish=publish, init=init, network=network, machine=machine, label=label,
        accelerator=accelerator,
        egress=egress, storage=storage, home=home, home_size=home_size, ttl=ttl, idle=idle,
        ephemeral=rm or not (keep or name or detach),
    )  # fmt: skip
    config: dict[str, Any] = {
        "name": name,
        "spec": spec,
        "exec": _exec_config(command, spec["env"], user, workdir, timeout, tty=_use_tty(tty, detach=detach)),
        "detach": detach,
    }
    started, code = _converse(session, "/v1/vms/run", config, config["exec"], stdin=not detach)
    if detach and code == 0:
        session.show_results([session.client.get(path_of("vms", str(started["vm_id"])))])
    return code


def exec_(
    ctx: Context,
    vm: VmArgument,
    command: Command = None,
    *,
    env: specs.Env = None,
    user: specs.User = "",
    workdir: specs.Workdir = "",
    timeout: RunTimeout = "",
    tty: Tty = None,
) -> int:
    """Run a command in a VM that is running."""
    config = _exec_config(command, specs.environment(env), user, workdir, timeout, tty=_use_tty(tty))
    return _converse(ctx.obj, path_of("vms", vm, "exec"), config, config, stdin=True)[1]


run.command_class = exec_.command_class = TrailingCommand  # type: ignore[attr-defined]  # read by banger.cli


def _use_tty(wish: bool | None, *, detach: bool = False) -> bool:
    return False if detach else is_interactive() if wish is None else wish


def _exec_config(
    command: Sequence[str] | None, env: Sequence[str], user: str, workdir: str, timeout: str, *, tty: bool
) -> dict[str, Any]:
    """The request of an exec, as in ARCHITECTURE.md."""
    return {
        "argv": list(command or ()),
        "env": list(env),
        "user": user,
        "workdir": workdir,
        "tty": {**terminal_size(), "term": os.environ.get("TERM") or "xterm"} if tty else None,
        "timeout_s": parse_duration(timeout) if timeout else None,
    }


def _converse(
    session: Session, path: str, config: Mapping[str, Any], execution: Mapping[str, Any], *, stdin: bool
) -> tuple[Mapping[str, Any], int]:
    """Hold the session; the payload of STARTED and the exit code."""
    channel: FrameChannel | None = None
    relay: Relay | None = None
    try:
        channel = session.client.frames(path, config)
        progress = session.progress(transient=True)
        relay = Relay(channel, progress, progress.close, tty=bool(execution["tty"]), stdin=stdin)
        return _finished(relay, relay.run())
    except BangerError as error:
        if relay is not None and relay.started is not None:
            raise
        raise NotRunError.from_dict(error.to_dict()) from error
    finally:
        if channel is not None:
            channel.close()


def _finished(relay: Relay, code: int) -> tuple[Mapping[str, Any], int]:
    return relay.started or {}, code
