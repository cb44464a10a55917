"""The life of VMs: create, start, stop, kill, delete, wait, logs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from typer import Context, Option

from banger.client import path_of
from banger.commands import options
from banger.commands import spec as specs
from banger.commands.naming import check_name
from banger.commands.pulling import bring_image
from banger.commands.session import CliSession
from banger.commands.targets import lines_of, select
from banger.core.plain_text import PrintableStream
from banger.core.units import parse_duration
from banger.core.wire.reading import mebibytes, one_of
from banger.core.wire.vms import CreateVmBody, GrowBody
from banger.render.streams import check_reader

_LIVE = frozenset({"starting", "running", "paused", "suspending", "stopping"})
_DOWN = frozenset({"stopped", "suspended", "failed"})

StopTimeout = Annotated[
    str | None, Option("--timeout", "--time", "-t", metavar="TIME", help="Time to wait before killing a VM.")
]


@specs.takes_vm_options
def create(
    ctx: Context,
    image: specs.ImageArgument = None,
    *,
    vm_options: specs.VmOptions,
    start: Annotated[bool, Option("--start", help="Also start it.")] = False,
) -> None:
    """Create a VM without running a command in it."""
    session: CliSession = ctx.obj
    check_name(session, vm_options.name)
    spec = vm_options.spec(session.layout, image)
    bring_image(session, spec.image, vm_options.pull)
    body = CreateVmBody(spec, vm_options.name, start)
    session.show_results([session.long("POST", "/v1/vms", body=body)])


def start(
    ctx: Context,
    vms: options.VmArguments = None,
    *,
    every: options.AllFlag = False,
    label: options.LabelFilter = None,
    cold: Annotated[bool, Option("--cold", help="Boot suspended VMs, giving up what is in their memory.")] = False,
) -> int:
    """Start stopped and suspended VMs."""
    query = {"cold": True} if cold else {}
    return _each(ctx.obj, "POST", "start", select(ctx.obj, vms, label, _DOWN, every=every), query)


def stop(
    ctx: Context,
    vms: options.VmArguments = None,
    *,
    every: options.AllFlag = False,
    label: options.LabelFilter = None,
    timeout: StopTimeout = None,
) -> int:
    """Shut VMs down, and kill those that take too long."""
    query = {"timeout_s": parse_duration(timeout)} if timeout else {}
    return _each(ctx.obj, "POST", "stop", select(ctx.obj, vms, label, _LIVE, every=every), query)


def restart(
    ctx: Context,
    vms: options.VmArguments = None,
    *,
    every: options.AllFlag = False,
    label: options.LabelFilter = None,
    timeout: StopTimeout = None,
) -> int:
    """Restart VMs; stopped ones are started."""
    query = {"timeout_s": parse_duration(timeout)} if timeout else {}
    return _each(ctx.obj, "POST", "restart", select(ctx.obj, vms, label, _LIVE, every=every), query)


def kill(
    ctx: Context, vms: options.VmArguments = None, every: options.AllFlag = False, label: options.LabelFilter = None
) -> int:
    """Kill VMs immediately, as if the power were cut."""
    return _each(ctx.obj, "POST", "kill", select(ctx.obj, vms, label, _LIVE, every=every))


def pause(
    ctx: Context, vms: options.VmArguments = None, every: options.AllFlag = False, label: options.LabelFilter = None
) -> int:
    """Pause VMs, keeping their memory."""
    return _each(ctx.obj, "POST", "pause", select(ctx.obj, vms, label, frozenset({"running"}), every=every))


def resume(
    ctx: Context, vms: options.VmArguments = None, every: options.AllFlag = False, label: options.LabelFilter = None
) -> int:
    """Resume paused VMs."""
    return _each(ctx.obj, "POST", "resume", select(ctx.obj, vms, label, frozenset({"paused"}), every=every))


def suspend(
    ctx: Context, vms: options.VmArguments = None, every: options.AllFlag = False, label: options.LabelFilter = None
) -> int:
    """Save VMs to disk and free their memory; they go on when they are started or used."""
    return _each(ctx.obj, "POST", "suspend", select(ctx.obj, vms, label, frozenset({"running"}), every=every))


def grow(
    ctx: Context,
    vm: options.VmArgument,
    disk: Annotated[str, Option("--disk", metavar="SIZE", help="New size of the disk and its file system.")],
) -> None:
    """Grow the disk of a stopped VM."""
    session: CliSession = ctx.obj
    body = GrowBody(mebibytes(disk))
    session.show_results([session.long("POST", path_of("vms", vm, "grow"), body=body)])


def delete(
    ctx: Context,
    vms: options.VmArguments = None,
    *,
    every: options.AllFlag = False,
    label: options.LabelFilter = None,
    force: options.ForceFlag = False,
    keep_home: Annotated[bool, Option("--keep-home", help="Keep its home disk for the next VM.")] = False,
) -> int:
    """Delete VMs and their disks."""
    targets = select(ctx.obj, vms, label, frozenset(), every=every)
    wishes = {"force": force, "keep_home": keep_home}
    return _each(ctx.obj, "DELETE", "", targets, {name: True for name, wished in wishes.items() if wished})


def wait(
    ctx: Context,
    vms: options.SeveralVms,
    *,
    until: Annotated[str, Option(metavar="STATE", help="State to wait for: stopped or running.")] = "stopped",
    timeout: options.Timeout = None,
) -> int:
    """Wait until VMs are stopped or running."""
    one_of("--until", until, ("stopped", "running"))
    query = {"until": until, "timeout_s": parse_duration(timeout) if timeout else None}
    return _each(ctx.obj, "GET", "wait", vms, query)


def logs(
    ctx: Context,
    vm: options.VmArgument,
    *,
    follow: options.FollowFlag = False,
    log_source: Annotated[
        str, Option("--source", metavar="SOURCE", help="Which log: console (the guest's) or vmm.")
    ] = "console",
    tail: options.Tail = None,
    raw: Annotated[bool, Option("--raw", help="Pass control characters through to a terminal.")] = False,
) -> None:
    """Show the console output of a VM."""
    session: CliSession = ctx.obj
    one_of("--source", log_source, ("console", "vmm"))
    query = {"source": log_source, "follow": follow or None, "tail": tail}
    pieces = session.client.stream(path_of("vms", vm, "logs"), query, on_wait=check_reader if follow else None)
    if session.json:
        for line in lines_of(pieces):
            session.show_line({"line": line}, line)
    elif sys.stdout.isatty() and not raw:
        _show_harmless(pieces)
    else:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _show_harmless(pieces: Iterable[bytes]) -> None:
    """A guest must not steer the terminal of whoever looks at its console."""
    stream = PrintableStream()
    for piece in pieces:
        sys.stdout.write(stream.feed(piece))
        sys.stdout.flush()
    sys.stdout.write(stream.end())


def _each(
    session: CliSession, method: str, action: str, targets: Sequence[str], query: Mapping[str, object] | None = None
) -> int:
    tail = (action,) if action else ()
    return session.each(targets, method, lambda vm: path_of("vms", vm, *tail), query)
