"""``banger vm cp``: files between this host and a guest."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Context, Option

from banger.client import Client
from banger.client.copying import CopyOptions, copy_across, copy_in, copy_out, directory_in_guest, guest_source
from banger.client.transfer import Transfer
from banger.commands.session import CliSession
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.render.terminal import printable

_READ_BYTES = 64 * 1024
_REDRAW_S = 0.1
_SHOWN = 10

CopySource = Annotated[str, Argument(metavar="SOURCE", help="PATH here or VM:PATH there; - is a tar stream.")]
Target = Annotated[str, Argument(metavar="TARGET", help="As SOURCE; one of the two is in a VM.")]
FollowLink = Annotated[bool, Option("--follow-link", "-L", help="If SOURCE is a symbolic link, copy what it leads to.")]
Archive = Annotated[bool, Option("--archive", "-a", help="Keep owners and groups, by number.")]


def cp(
    ctx: Context, source: CopySource, target: Target, follow_link: FollowLink = False, archive: Archive = False
) -> int:
    """Copy files between this host and a VM, or two VMs."""
    session: CliSession = ctx.obj
    from_vm, from_path = split_location(source)
    to_vm, to_path = split_location(target)
    if not from_vm and not to_vm:
        message = "one of the two must be a path in a VM"
        raise BangerError(ErrorKind.USAGE, message, hint="banger vm cp ./file VM:/tmp")
    progress = session.progress(transient=True)
    progress({"kind": "step_started", "step": f"copy {source}"})
    on_bytes = _throttled(lambda count: progress(_progress_event(f"copy {source}", count)))
    options = CopyOptions(follow_link, archive, on_bytes)
    left_out: list[str] = []
    try:
        if from_vm and to_vm:
            left_out = copy_across(session.client, (from_vm, from_path), (to_vm, to_path), options)
        elif to_vm and from_path == "-":
            _send_stdin(session.client, to_vm, to_path, on_bytes)
        elif to_vm:
            copy_in(session.client, to_vm, from_path, to_path, options)
        elif to_path == "-":
            progress.close()
            return _report(session, source, target, _print_archive(session.client, from_vm, from_path, options))
        else:
            left_out = copy_out(session.client, from_vm, from_path, to_path, options)
    finally:
        progress.close()
    return _report(session, source, target, left_out)


def split_location(text: str) -> tuple[str, str]:
    """``VM:PATH`` as VM and path; a VM's name has no slash, so ``./a:b`` is a file here."""
    vm, colon, path = text.partition(":")
    return (vm, path or "/") if colon and vm and "/" not in vm else ("", text)


def _report(session: CliSession, source: str, target: str, left_out: list[str]) -> int:
    if session.json and target != "-":
        session.show_document({"source": source, "target": target, "left_out": left_out}, "")
    for line in left_out[:_SHOWN]:
        session.tell(f"left out: {printable(line)}")
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
    transfer = Transfer(client, vm, "get", {"path": path})
    try:
        for piece in transfer.pieces():
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
