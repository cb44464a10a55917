"""The environment of a guest's command, from options and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from banger.core.errors import BangerError, ErrorKind


def environment(
    variables: Sequence[str] | None, files: Sequence[Path] | None = None, env: Mapping[str, str] | None = None
) -> list[str]:
    """``K=V`` as typed behind the lines of files; a bare ``K`` takes the value it has here, if it has one.

    Raises:
        BangerError: ``usage`` for what is no variable, or a file that cannot be read.
    """
    env = os.environ if env is None else env
    found = [item for file in files or () for item in _from_file(file, env)]
    for variable in variables or ():
        if not variable.partition("=")[0]:
            message = f'"{variable}" is not an environment variable'
            raise BangerError(ErrorKind.USAGE, message, subject=variable, hint="write --env NAME=VALUE")
        found += _assigned(variable, env)
    return found


def _assigned(variable: str, env: Mapping[str, str]) -> list[str]:
    name, assigned, _ = variable.partition("=")
    if assigned:
        return [variable]
    return [f"{name}={env[name]}"] if name in env else []


def _from_file(file: Path, env: Mapping[str, str]) -> Iterator[str]:
    """The lines of an environment file as Docker has them: no quoting, no escapes, ``#`` only begins a whole line.

    The format is that of ``docker run --env-file``.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        message, cause = f'cannot read "{file}"', error.strerror or str(error)
        raise BangerError(ErrorKind.USAGE, message, subject=str(file), cause=cause) from error
    except UnicodeDecodeError as error:
        raise BangerError(ErrorKind.USAGE, f'"{file}" is not UTF-8', subject=str(file), cause=str(error)) from error
    for number, line in enumerate(text.split("\n"), start=1):
        variable = line.removesuffix("\r").lstrip()
        if not variable or variable.startswith("#"):
            continue
        name = variable.partition("=")[0]
        if not name or any(map(str.isspace, name)) or "\0" in variable:
            message = f'line {number} of "{file}" is not an environment variable'
            hint = "write NAME=VALUE, without spaces around NAME"
            raise BangerError(ErrorKind.USAGE, message, subject=str(file), cause=line.strip()[:80], hint=hint)
        yield from _assigned(variable, env)
