"""``banger vm why``: why VMs stopped or failed, on the terminal or as one file for a bug report."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from typer import Context, Option

from banger.client import path_of
from banger.commands.options import VmArguments
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.render import details
from banger.render.views import size

Last = Annotated[bool, Option("--last", help="The VM that failed most recently.")]
Bundle = Annotated[Path | None, Option("--bundle", metavar="FILE", help="Write a new tar.gz file for a bug report.")]


def why(ctx: Context, vms: VmArguments = None, *, last: Last = False, bundle: Bundle = None) -> None:
    """Show why a VM stopped or failed, and what to do next."""
    session: CliSession = ctx.obj
    queries = list(vms or ())
    if last == bool(queries):
        message = "name VMs, or use --last, not both" if last else "no VM is named"
        raise BangerError(ErrorKind.USAGE, message, hint="banger vm why VM, or banger vm why --last")
    if last:
        queries = [_last(session)]
    if bundle is not None:
        _write_bundle(session, queries, bundle)
        return
    found = [session.client.get(path_of("vms", query, "why")) for query in queries]
    session.show_document(
        found[0] if len(found) == 1 else found,
        lambda terminal: "\n".join(details.why_page(item, terminal) for item in found),
    )


def _last(session: CliSession) -> str:
    """The id of the newest evidence."""
    kept = session.client.get("/v1/evidence")
    if not kept:
        message = "nothing is kept: no VM has gone wrong in the last seven days"
        raise BangerError(ErrorKind.NOT_FOUND, message, hint="banger vm list")
    return str(kept[0]["id"])


def _write_bundle(session: CliSession, queries: list[str], target: Path) -> None:
    if len(queries) != 1:
        raise BangerError(ErrorKind.USAGE, "a bundle is of one VM", hint="banger vm why VM --bundle FILE")
    written = _write_new(target, session.client.stream(path_of("vms", queries[0], "why", "archive")))
    session.show_document({"path": str(target), "size_bytes": written}, f"{target}\n")
    session.tell(f"{size(written)}: logs, times and versions; look at it before you publish it")


def _write_new(target: Path, pieces: Iterable[bytes]) -> int:
    """Write a file that is not there yet, for its owner alone; nothing is left of it if that fails. Its size."""
    content = b"".join(pieces)  # a few hundred kilobytes at most, and what is refused must not leave a file
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise BangerError(
            ErrorKind.ALREADY_EXISTS, f'"{target}" already exists', subject=str(target), hint="name another file"
        ) from error
    except OSError as error:
        raise BangerError(
            ErrorKind.DENIED, f'cannot write "{target}"', subject=str(target), cause=error.strerror or ""
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        with suppress(OSError):
            target.unlink()
        raise BangerError(
            ErrorKind.EXHAUSTED, f'cannot write "{target}"', subject=str(target), cause=error.strerror or ""
        ) from error
    return len(content)
