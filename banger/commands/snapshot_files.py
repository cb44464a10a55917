"""``snapshot export`` and ``snapshot import``: snapshots as files; ``-`` is a pipe to or from another program."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Option

from banger.client import path_of
from banger.commands.options import SnapshotArgument
from banger.commands.session import CliSession
from banger.core.errors import BangerError, ErrorKind
from banger.core.wire.snapshots import ExportSnapshotBody, ImportSnapshotBody
from banger.render.views import size

PIPE = "-"
_SECRETS = "it holds what was in the guest's memory, passwords and keys too"


def export_snapshot(
    ctx: Context,
    snapshot: SnapshotArgument,
    file: Annotated[str, Argument(metavar="FILE", help="File to create, which must not exist yet; - for a pipe.")],
) -> None:
    """Export a snapshot to a file, for another host."""
    session: CliSession = ctx.obj
    if file != PIPE:
        written = _export(session, snapshot, Path(file).absolute())
        session.show_document(written, f"{written['path']}\n")
        session.tell(f"wrote {size(written.get('size_bytes'))}; {_SECRETS}")
        return
    if sys.stdout.isatty():
        hint = f"banger snapshot export {snapshot} - | age -p > FILE"
        raise BangerError(ErrorKind.USAGE, "a snapshot is not written to a terminal", hint=hint)
    with _scratch() as target:
        written = _export(session, snapshot, target)
        with target.open("rb") as source:
            shutil.copyfileobj(source, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    session.tell(f"wrote {size(written.get('size_bytes'))}; {_SECRETS}")


def import_snapshot(
    ctx: Context,
    file: Annotated[str, Argument(metavar="FILE", help="File that was exported; - for a pipe.")],
    *,
    name: Annotated[str, Option("--name", metavar="NAME", help="Name of the snapshot; by default, as it was.")] = "",
) -> None:
    """Import a snapshot from a file; trust whoever made it."""
    session: CliSession = ctx.obj
    if file != PIPE:
        _import(session, Path(file).absolute(), name)
        return
    with _scratch() as target:
        with target.open("xb") as sink:
            shutil.copyfileobj(sys.stdin.buffer, sink)
        _import(session, target, name)


def _export(session: CliSession, snapshot: str, target: Path) -> dict[str, Any]:
    written: dict[str, Any] = session.long(
        "POST", path_of("snapshots", snapshot, "export"), body=ExportSnapshotBody(str(target))
    )
    return written


def _import(session: CliSession, source: Path, name: str) -> None:
    body = ImportSnapshotBody(str(source), name)
    session.show_results([session.long("POST", "/v1/snapshots/import", body=body)])


@contextmanager
def _scratch() -> Iterator[Path]:
    """A file that is not there yet, in a directory that nobody else can look into; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="banger-") as directory:
        yield Path(directory) / "snapshot"
