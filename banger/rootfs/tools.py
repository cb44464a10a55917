"""Running the programs of e2fsprogs, which make file systems, check and resize them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.posix.programs import run_program, search_path


def run_tool(
    name: str,
    arguments: Sequence[str],
    *,
    token: CancelToken | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    stdin: str = "",
) -> tuple[int, str]:
    """Run a program with ``stdin`` and a clean environment; killed when ``token`` is cancelled.

    Returns:
        Its exit code and everything it printed.

    Raises:
        BangerError: ``unavailable`` if it is not installed, ``cancelled``, or ``timeout`` after ``timeout_s``.
    """
    done = run_program(
        [name, *arguments],
        token=token,
        timeout_s=timeout_s,
        stdin=stdin.encode(),
        environment={"PATH": search_path(), **(environment or {})},
        merge_errors=True,
    )
    return done.status, done.text.strip()


def check_file_system(image: Path, token: CancelToken | None = None) -> None:
    """Let e2fsck read the whole file system, changing nothing.

    Raises:
        BangerError: ``internal`` with e2fsck's own words if it finds the least fault: that is a bug of the writer.
    """
    code, output = run_tool("e2fsck", ["-f", "-n", str(image)], token=token)
    if code != 0:
        raise BangerError(ErrorKind.INTERNAL, "the file system just written is not clean", cause=output[-4000:])
