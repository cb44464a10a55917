"""``banger vm cp``: copying files between this host and guests."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Context, Option

from banger.client import Client
from banger.client.ceiling import MOST_BYTES, Ceiling
from banger.client.copying import CopyOptions, copy_across, copy_in, copy_out, directory_in_guest, guest_source
from banger.client.transfer import Transfer
from banger.commands.session import CliSession
from banger.commands.signals import ending_in_order
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.core.units import format_size, parse_size

_READ_BYTES = 64 * 1024
_REDRAW_S = 0.1
_SHOWN = 10
_MOST = format_size(MOST_BYTES, spaced=False)

CopySource = Annotated[str, Argument(metavar="SOURCE", help="PATH on this host or VM:PATH; - is a tar stream.")]
Target = Annotated[str, Argument(metavar="TARGET", help="Like SOURCE; at least one of the two is in a VM.")]
FollowLink = Annotated[bool, Option("--follow-link", "-L", help="If SOURCE is a symbolic link, copy its target.")]
Archive = Annotated[bool, Option("--archive", "-a", help="Preserve numeric owners and groups.")]
MaxSize = Annotated[str, Option(metavar="SIZE", help="Limit on what is copied out of a VM.")]


def cp(
    ctx: Context,
    source: CopySource,
    target: Target,
    *,
    follow_link: FollowLink = False,
    archive: Archive = False,
    max_size: MaxSize = _MOST,
) -> int:
    """Copy files between this host and a VM, or between two VMs."""
    session: CliSession = ctx.obj
    from_vm, from_path = split_location(source)
    to_vm, to_path = split_location(target)
    if not from_vm and not to_vm:
        message = "one of the two must be a path in a VM"
        raise BangerError(ErrorKind.USAGE, message, hint="banger vm cp ./file VM:/tmp")
    most_bytes = parse_size(max_size)
    progress = session.progress(transient=True)
    progress({"kind": "step_started", "step": f"copy {source}"})
    on_bytes = _throttled(lambda count: progress(_progress_event(f"copy {source}", count)))
    options = CopyOptions(follow_link, archive, on_bytes, most_bytes)
    try:
        with ending_in_order():
            left_out = _copy(session.client, (from_vm, from_path), (to_vm, to_path), options, progress.close)
    finally:
        progress.close()
    return _report(session, source, target, left_out)


def _copy(
    client: Client, source: tuple[str, str], target: tuple[str, str], options: CopyOptions, quieten: Callable[[], None]
) -> list[str]:
    """Copy between two places, each a VM (or nothing, for here) and a path; what was left out, a line each."""
    if source[0] and target[0]:
        return copy_across(client, source, target, options)
    if not source[0] and source[1] == "-":
        _send_stdin(client, *target, options.on_bytes)
    elif not source[0]:
        copy_in(client, target[0], source[1], target[1], options)
    elif target[1] == "-":
        quieten()
        return _print_archive(client, *source, options)
    else:
        return copy_out(client, *source, target[1], options)
    return []


def split_location(text: str) -> tuple[str, str]:
    """``VM:PATH`` as VM and path; a VM's name has no slash, so ``./a:b`` is a file here."""
    vm, colon, path = text.partition(":")
    return (vm, path or "/") if colon and vm and "/" not in vm else ("", text)


def _report(session: CliSession, source: str, target: str, left_out: list[str]) -> int:
    if session.json and target != "-":
        session.show_document({"source": source, "target": target, "left_out": left_out}, "")
    for line in left_out[:_SHOWN]:
        session.tell(f"left out: {line}")
    if len(left_out) > _SHOWN:
        session.tell(f"left out: {len(left_out) - _SHOWN} more, see --json")
    return EXIT_CODES[ErrorKind.INVALID] if left_out else 0


def _send_stdin(client: Client, vm: str, path: str, on_bytes: Callable[[int], None]) -> None:
    from banger.client.repacking import repack  # tarfile is not needed before

    directory = directory_in_guest(client, vm, path)
    transfer = Transfer(client, vm, "put", {"directory": directory}, on_bytes)
    transfer.feed(lambda send: repack(lambda: os.read(0, _READ_BYTES), send))


def _print_archive(client: Client, vm: str, source: str, options: CopyOptions) -> list[str]:
    """Write it to standard output; what was left out, a line each."""
    path, _ = guest_source(client, vm, source, follow_link=options.follow_link)
    transfer, ceiling = Transfer(client, vm, "get", {"path": path}), Ceiling(options.most_bytes)
    try:
        for piece in transfer.pieces():
            ceiling.add(len(piece))
            sys.stdout.buffer.write(piece)
    finally:
        transfer.close()
    return transfer.left_out


def _progress_event(step: str, done: int) -> dict[str, Any]:
    return {"kind": "progress", "step": step, "done": done, "unit": "bytes"}


def _throttled(tell: Callable[[int], None]) -> Callable[[int], None]:
    last = 0.0

    def maybe(count: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REDRAW_S:
            last = now
            tell(count)

    return maybe
