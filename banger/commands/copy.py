"""``banger vm cp``: files between this host and a guest."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

from typer import Argument, Context

from banger.client.copying import Transfer, copy_in, copy_out, guest_path
from banger.commands.session import Session
from banger.core.errors import EXIT_CODES, BangerError, ErrorKind
from banger.render.terminal import printable

_READ_BYTES = 64 * 1024
_REDRAW_S = 0.1
_SHOWN = 10

Source = Annotated[str, Argument(metavar="SOURCE", help="PATH here or VM:PATH there; - is a tar stream.")]
Target = Annotated[str, Argument(metavar="TARGET", help="The other of the two.")]


def cp(ctx: Context, source: Source, target: Target) -> int:
    """Copy files between this host and a VM."""
    session: Session = ctx.obj
    from_vm, from_path = split_location(source)
    to_vm, to_path = split_location(target)
    if bool(from_vm) == bool(to_vm):
        message = "one of the two must be a path in a VM" + (", and only one" if from_vm else "")
        raise BangerError(ErrorKind.USAGE, message, hint="banger vm cp ./file VM:/tmp")
    progress = session.progress(transient=True)
    progress({"kind": "step_started", "step": f"copy {source}"})
    on_bytes = _throttled(lambda count: progress(_progress_event(f"copy {source}", count)))
    left_out: list[str] = []
    try:
        if to_vm and from_path == "-":
            Transfer(session.client, to_vm, "put", {"directory": guest_path(to_path)}).feed(_send_stdin)
        elif to_vm:
            copy_in(session.client, to_vm, from_path, to_path, on_bytes)
        elif to_path == "-":
            progress.close()
            _print_archive(Transfer(session.client, from_vm, "get", {"path": guest_path(from_path)}))
            return 0
        else:
            left_out = copy_out(session.client, from_vm, from_path, to_path, on_bytes)
    finally:
        progress.close()
    return _report(session, source, target, left_out)


def split_location(text: str) -> tuple[str, str]:
    """``VM:PATH`` as VM and path; a VM's name has no slash, so ``./a:b`` is a file here."""
    vm, colon, path = text.partition(":")
    return (vm, path or "/") if colon and vm and "/" not in vm else ("", text)


def _report(session: Session, source: str, target: str, left_out: list[str]) -> int:
    if session.json:
        session.show_document({"source": source, "target": target, "left_out": left_out}, "")
    for line in left_out[:_SHOWN]:
        session.tell(f"left out: {printable(line)}")
    if len(left_out) > _SHOWN:
        session.tell(f"left out: {len(left_out) - _SHOWN} more, see --json")
    return EXIT_CODES[ErrorKind.INVALID] if left_out else 0


def _send_stdin(send: Callable[[bytes], None]) -> None:
    while data := os.read(0, _READ_BYTES):
        send(data)


def _print_archive(transfer: Transfer) -> None:
    try:
        for piece in transfer.pieces():
            sys.stdout.buffer.write(piece)
    finally:
        transfer.close()


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
