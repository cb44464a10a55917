"""``run`` and ``exec``: a command in a guest, as if it ran here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands import spec as specs
from banger.commands.environment import environment
from banger.commands.naming import check_name
from banger.commands.options import VmArgument
from banger.commands.pulling import bring_image
from banger.commands.relay import KILL_AFTER_S, Manner, Relay, is_interactive, terminal_size
from banger.commands.session import CliSession
from banger.commands.trailing import TrailingCommand
from banger.core.errors import BangerError, ErrorKind
from banger.core.units import parse_duration
from banger.core.wire.exec import ExecConfig, RunConfig, TerminalConfig

_NOT_RUN = 125
#: Failures of the host rather than of what was typed: where nothing better is advised, find out what works here.
_OF_THE_HOST = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.INTERNAL})
_KEEP_THEIR_CODE = frozenset({ErrorKind.USAGE, ErrorKind.CANCELLED})

Command = Annotated[list[str] | None, Argument(metavar="[--] COMMAND...", help="Command to run in it.")]
Interactive = Annotated[bool, Option("--interactive", "-i", help="Pass standard input on; this is the default.")]
NoStdin = Annotated[bool, Option("--no-stdin", "-n", help="Do not read standard input; the command gets an empty one.")]
Tty = Annotated[
    bool | None, Option("--tty/--no-tty", "-t", help="Allocate a terminal; by default, if there is one here.")
]
RunTimeout = Annotated[str, Option("--timeout", metavar="TIME", help="Terminate the command after this time: 90s, 5m.")]
KillAfter = Annotated[
    str,
    Option(metavar="TIME", help="Kill a command that is still running this long after TERM; 0 waits forever."),
]


class NotRunError(BangerError):
    """banger failed before the command could run, which must not look like a failure of the command."""

    @classmethod
    def of(cls, error: BangerError) -> BangerError:
        """``error``, told as what kept the command from running."""
        made = cls.from_dict(error.to_dict())
        if made.kind in _OF_THE_HOST:
            made.hint = made.hint or "banger doctor --boot"
        return made

    @property
    def exit_code(self) -> int:
        """125, as every tool that runs other commands has it; but what was typed wrong is still that."""
        return super().exit_code if self.kind in _KEEP_THEIR_CODE else _NOT_RUN


@specs.takes_vm_options
def run(
    ctx: Context,
    image: specs.ImageArgument = None,
    command: Command = None,
    *,
    vm_options: specs.VmOptions,
    rm: Annotated[bool, Option("--rm", help="Delete the VM afterwards; the default unless named or detached.")] = False,
    keep: Annotated[bool, Option("--keep", help="Keep the VM running afterwards.")] = False,
    detach: Annotated[bool, Option("--detach", "-d", help="Run in the background and print the VM's name.")] = False,
    timeout: RunTimeout = "",
    interactive: Interactive = False,
    no_stdin: NoStdin = False,
    tty: Tty = None,
    kill_after: KillAfter = f"{KILL_AFTER_S:g}s",
) -> int:
    """Run a command in a new VM, and exit with its status."""
    session: CliSession = ctx.obj
    if rm and keep:
        raise BangerError(ErrorKind.USAGE, "--rm and --keep exclude each other")
    if detach and timeout:
        hint = "--ttl deletes the VM so long after it was made"
        raise BangerError(ErrorKind.USAGE, "--detach and --timeout exclude each other", hint=hint)
    check_name(session, vm_options.name)
    patience_s = parse_duration(kill_after)
    stdin = _wants_stdin(interactive=interactive, no_stdin=no_stdin)
    spec = vm_options.spec(session.layout, image, ephemeral=rm or not (keep or vm_options.name or detach))
    tty = _use_tty(tty, stdin=stdin, detach=detach)
    execution = _exec_config(command, spec.env, spec.user, spec.workdir, timeout, tty=tty)
    config = RunConfig(spec, vm_options.name, execution, detach)
    with _as_not_run():
        bring_image(session, spec.image, vm_options.pull)
    manner = Manner(tty=tty, stdin=stdin and not detach, kill_after_s=patience_s)
    started, code = _converse(session, "/v1/vms/run", config, manner)
    if detach and code == 0:
        session.show_results([session.client.get(path_of("vms", str(started["vm_id"])))])
    return code


def exec_(
    ctx: Context,
    vm: VmArgument,
    command: Command = None,
    *,
    env: specs.Env = None,
    env_file: specs.EnvFiles = None,
    user: specs.User = "",
    workdir: specs.Workdir = "",
    timeout: RunTimeout = "",
    interactive: Interactive = False,
    no_stdin: NoStdin = False,
    tty: Tty = None,
    kill_after: KillAfter = f"{KILL_AFTER_S:g}s",
    checkpoint: Annotated[
        str,
        Option("--checkpoint", metavar="auto|off", help="Take a snapshot first, to which `vm rewind` goes back."),
    ] = "off",
    privileged: specs.Privileged = False,  # noqa: ARG001  # root in a VM has every right
) -> int:
    """Run a command in a running VM."""
    stdin = _wants_stdin(interactive=interactive, no_stdin=no_stdin)
    variables = environment(env, env_file)
    manner = Manner(tty=_use_tty(tty, stdin=stdin), stdin=stdin, kill_after_s=parse_duration(kill_after))
    if checkpoint not in ("auto", "off"):
        raise BangerError(ErrorKind.USAGE, f'"{checkpoint}" is not a kind of checkpoint', hint="--checkpoint auto")
    config = _exec_config(command, variables, user, workdir, timeout, tty=manner.tty)
    config = replace(config, checkpoint="auto" if checkpoint == "auto" else "")
    return _converse(ctx.obj, path_of("vms", vm, "exec"), config, manner)[1]


run.command_class = exec_.command_class = TrailingCommand  # type: ignore[attr-defined]  # read by banger.cli


def _wants_stdin(*, interactive: bool, no_stdin: bool) -> bool:
    if interactive and no_stdin:
        raise BangerError(ErrorKind.USAGE, "--interactive and --no-stdin exclude each other")
    return not no_stdin


def _use_tty(wish: bool | None, *, stdin: bool, detach: bool = False) -> bool:
    """A terminal is given if it is wished for, or if both ends here are one."""
    return False if detach else stdin and is_interactive() if wish is None else wish


def _exec_config(
    command: Sequence[str] | None, env: Sequence[str], user: str, workdir: str, timeout: str, *, tty: bool
) -> ExecConfig:
    terminal = TerminalConfig(**terminal_size(), term=os.environ.get("TERM") or "xterm") if tty else None
    timeout_s = parse_duration(timeout) if timeout else None
    return ExecConfig(tuple(command or ()), tuple(env), user, workdir, terminal, timeout_s)


@contextmanager
def _as_not_run() -> Iterator[None]:
    """Whatever fails in here kept the command from running."""
    try:
        yield
    except BangerError as error:
        raise NotRunError.of(error) from error


def _converse(
    session: CliSession, path: str, config: RunConfig | ExecConfig, manner: Manner
) -> tuple[Mapping[str, Any], int]:
    """Hold the session; the payload of STARTED and the exit code."""
    with _as_not_run():
        channel = session.client.frames(path, config)
    progress = session.progress(transient=True)
    relay = Relay(channel, progress, progress.close, manner)
    try:
        code = relay.run()
    except BangerError as error:
        if relay.started is not None:
            raise
        raise NotRunError.of(error) from error
    finally:
        channel.close()
    return relay.started or {}, code
