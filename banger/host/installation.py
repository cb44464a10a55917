"""Which installation this is: its id marks everything that it makes on the host."""

from __future__ import annotations

import os
import re

from banger.core.errors import BangerError, ErrorKind
from banger.core.names import ID_LENGTH, new_id
from banger.layout import Layout

_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}\Z")


def installation_id(layout: Layout) -> str:
    """The id, made at the first call and on the disk when this returns. Call it under the daemon's lock.

    Raises:
        BangerError: ``invalid`` if the file holds something else: with a made-up id, what carries the real one would
            never be found again.
    """
    file = layout.installation_id_file
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return _make(layout)
    if not _ID.match(text):
        raise BangerError(
            ErrorKind.INVALID, f'"{file}" holds no installation id', subject=str(file),
            cause=f"{text[:40]!r} is not {ID_LENGTH} hexadecimal digits",
            hint="put the id back that is part of the names of this installation's taps and units",
        )  # fmt: skip
    return text


def _make(layout: Layout) -> str:
    made = new_id()
    file = layout.installation_id_file
    fresh = file.with_name(f"{file.name}.new")
    with fresh.open("w") as output:
        output.write(f"{made}\n")
        output.flush()
        os.fsync(output.fileno())
    fresh.replace(file)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return made
