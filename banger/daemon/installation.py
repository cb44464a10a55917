"""The installation's id, which is part of the names of its taps, devices and processes."""

from __future__ import annotations

import os
import re
import secrets

from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.posix.files import read_regular


def installation_id(layout: Layout) -> str:
    """Twelve hex digits that mark every host object of this installation; made at the first start.

    Raises:
        BangerError: ``unavailable`` if the file holds anything else: with another mark nothing of ours would be found.
            ``denied`` if it cannot be read.
    """
    file = layout.installation_id_file
    try:
        known = read_regular(file).decode(errors="replace").strip()
    except FileNotFoundError:
        known = secrets.token_hex(6)
        fresh = file.with_suffix(".new")
        with fresh.open("w") as out:
            out.write(f"{known}\n")
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    except OSError as error:
        cause = error.strerror or str(error)
        raise BangerError(ErrorKind.DENIED, f'cannot read "{file}"', subject=str(file), cause=cause) from error
    if not re.fullmatch("[0-9a-f]{12}", known):
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'"{file}" does not hold an installation\'s id',
            subject=str(file),
            cause=f'twelve hex digits are expected, "{known[:40]}" is there',
            hint="put the file back; the names of this installation's taps and devices carry the id",
        )
    return known
