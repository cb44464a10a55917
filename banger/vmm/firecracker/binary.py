"""Which Firecracker is used, and what it says of itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.layout import Layout
from banger.posix.elf import read_linkage
from banger.posix.programs import run_program, search_path
from banger.trusted_path import check_program
from banger.vmm.firecracker.installed import JAILER, NAME, VMM, find_installed, installed
from banger.vmm.firecracker.releases import Version, parse_version

#: Where a program comes from: banger's own directory, the setting ``firecracker.path``, or PATH.
INSTALLED, SETTING, SEARCHED = "installed", "setting", "path"
#: Older ones do not tell the guest of its devices by ACPI, which distributions' kernels find them by.
OLDEST: Version = (1, 8, 0)
INSTALL = "banger driver install firecracker"
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Binary:
    """A Firecracker that runs here, and the jailer beside it.

    Attributes:
        path: of the program itself, with every link followed.
        version: as numbers; ``text`` as it says it.
        jailer: None where there is none.
        jailer_text: its version, or empty.
        origin: one of :data:`INSTALLED`, :data:`SETTING`, :data:`SEARCHED`.
        is_static: neither needs a file besides itself.
    """

    path: Path
    version: Version
    text: str
    jailer: Path | None
    jailer_text: str
    origin: str
    is_static: bool

    @property
    def why_not_jailed(self) -> str:
        """Why the jailer cannot start it; empty if it can."""
        if self.jailer is None:
            return f'there is no "{JAILER}" beside {self.path}'
        if self.jailer_text != self.text:
            return f"the jailer is of version {self.jailer_text or 'unknown'}, Firecracker of {self.text}"
        if not self.is_static:
            return f"{self.path}, or its jailer, is linked with libraries, which a jail does not have"
        if NAME not in self.path.name:
            return f'the jailer takes no program without "{NAME}" in its name: {self.path}'
        return ""


def find_binary(layout: Layout, config: Config, version: str = "") -> Binary:
    """The Firecracker to use.

    Args:
        layout: has those that banger installed.
        config: ``firecracker.path`` and ``firecracker.version``.
        version: exactly this one, as a VM's row names it, from wherever; empty for the one that new starts take.

    Raises:
        BangerError: ``unavailable`` if there is none, or it does not work; ``denied`` if others could change it.
    """
    if not version:
        origin, path = next(_candidates(layout, config), (INSTALLED, None))
        if path is None:
            raise _missing("Firecracker is not installed", "", INSTALL)
        return inspect(path, origin)
    if (found := find_installed(layout, version)) is not None:
        return inspect(found.directory / VMM, INSTALLED)
    for origin, path in _not_ours(config):
        with suppress(BangerError):
            if (other := inspect(path, origin)).text == version:
                return other
    raise _missing(f'Firecracker "{version}" is not installed', version, f"{INSTALL} --version {version}")


def is_there(layout: Layout, config: Config) -> bool:
    """Whether there is one, good or not, without looking at it closely."""
    try:
        return next(_candidates(layout, config), None) is not None
    except BangerError:
        return False


def is_wanted(layout: Layout, config: Config) -> bool:
    """Whether there is anything to be said of it: it is there, or a setting names it."""
    return bool(config.text("firecracker.path") or config.text("firecracker.version")) or is_there(layout, config)


def inspect(path: Path, origin: str) -> Binary:
    """What is known of one program. Raises as :func:`find_binary`."""
    try:
        real = path.resolve(strict=True)
        check_program(real)
        version, text, is_static = _asked(real)
        beside = (one.with_name(JAILER) for one in (path, real))
        jailer = next((one.resolve() for one in beside if one.is_file()), None)
        if jailer is None:
            return Binary(real, version, text, None, "", origin, is_static)
        check_program(jailer)
        jailer_text, is_jailer_static = _told_by(jailer)
        return Binary(real, version, text, jailer, jailer_text, origin, is_static and is_jailer_static)
    except OSError as error:
        cause = error.strerror or str(error)
        raise _missing(f'"{path}" cannot be used', str(path), INSTALL, cause) from error


def _candidates(layout: Layout, config: Config) -> Iterator[tuple[str, Path]]:
    """Where to look, the first that fits. What a setting names is taken, or nothing."""
    if config.text("firecracker.path"):
        yield from _not_ours(config)
        return
    if wanted := config.text("firecracker.version"):
        found = find_installed(layout, wanted)
        if found is None:
            message = f'Firecracker "{wanted}" is not installed'
            raise _missing(message, wanted, f"{INSTALL} --version {wanted}", "firecracker.version is set to it")
        yield INSTALLED, found.directory / VMM
        return
    yield from ((INSTALLED, one.directory / VMM) for one in installed(layout) if not one.broken)
    yield from _not_ours(config)


def _not_ours(config: Config) -> Iterator[tuple[str, Path]]:
    """What somebody else put here: where the setting says, or anywhere in PATH."""
    if named := config.text("firecracker.path"):
        path = Path(named).expanduser()
        yield SETTING, path / VMM if path.is_dir() else path
    elif (found := shutil.which(NAME, path=search_path())) is not None:
        yield SEARCHED, Path(found)


def _told_by(jailer: Path) -> tuple[str, bool]:
    """Its version, and whether it is static."""
    try:
        _, text, is_static = _asked(jailer)
    except BangerError:  # it can be done without
        return "", False
    return text, is_static


def _asked(path: Path) -> tuple[Version, str, bool]:
    status = path.stat()
    return _ask(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _ask(path: Path, _inode: int, _mtime_ns: int, _size: int) -> tuple[Version, str, bool]:
    """Ask a program once for as long as it does not change on disk: ``Firecracker v1.12.1``, ``Jailer v1.12.1``."""
    try:
        done = run_program([str(path), "--version"], timeout_s=_TIMEOUT_S)
    except BangerError as error:
        is_gone = error.kind is ErrorKind.UNAVAILABLE
        raise _useless(path, "what it is linked with is not here" if is_gone else error.message) from error
    text = done.text.partition("\n")[0].partition(" v")[2].strip()
    version = parse_version(text)
    if done.status or version is None:
        raise _useless(path, done.words or f"it ended with status {done.status} and told no version")
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise _missing(f'"{path}" is too old', str(path), INSTALL, f"it is {text}, banger needs {oldest} or newer")
    with path.open("rb") as file:
        try:
            return version, text, read_linkage(file).is_static
        except ValueError:  # a script that starts it
            return version, text, False


def _useless(path: Path, cause: str) -> BangerError:
    return _missing(f'"{path}" does not work', str(path), f"{path} --version", cause)


def _missing(message: str, subject: str, hint: str, cause: str = "") -> BangerError:
    return BangerError(ErrorKind.UNAVAILABLE, message, subject=subject, cause=cause, hint=hint)
