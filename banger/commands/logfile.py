"""Reading one of our log files: the last lines, and following it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind
from banger.render.streams import check_reader

_POLL_S = 0.2


def read_log(path: Path, tail: int | None, *, follow: bool) -> Iterator[str]:
    """The lines of ``path``: the last ``tail`` (``None``: all), then new ones forever if ``follow``.

    Raises:
        BangerError: ``not_found`` if there is no such file, ``denied`` if it cannot be read.
    """
    try:
        file = path.open(encoding="utf-8", errors="replace", newline="\n")
    except FileNotFoundError:
        raise BangerError(
            ErrorKind.NOT_FOUND,
            f'there is no log at "{path}"',
            subject=str(path),
            cause="only a daemon that runs in the background writes one",
            hint="banger daemon status",
        ) from None
    except OSError as error:
        message = f'cannot read "{path}"'
        raise BangerError(ErrorKind.DENIED, message, subject=str(path), cause=error.strerror or "") from error
    with file:
        lines = (line.rstrip("\n") for line in file)
        yield from lines if tail is None else deque(lines, maxlen=tail)
        rest = ""
        while follow:
            rest += file.read()
            *lines_now, rest = rest.split("\n")
            yield from lines_now
            if not lines_now:
                check_reader()
                time.sleep(_POLL_S)
