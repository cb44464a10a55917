"""The programs of the toolbox and their libraries, found on this host or in its distribution's packages."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.kernels import packages
from banger.posix.elf import Linkage, read_linkage
from banger.posix.programs import ProgramError, output_of


@dataclass(frozen=True, slots=True)
class Tool:
    """A program: its place in the toolbox, where hosts keep it, and the Debian package that has it."""

    path: str
    places: tuple[str, ...]
    package: str
    static: bool = False

    @property
    def name(self) -> str:
        """What the program is called."""
        return PurePosixPath(self.path).name


BUSYBOX = Tool(
    "bin/busybox", ("usr/bin/busybox", "bin/busybox", "usr/bin/busybox.static"), "busybox-static", static=True
)
TOOLS = (
    BUSYBOX,
    Tool("usr/sbin/dropbear", ("usr/sbin/dropbear", "usr/bin/dropbear"), "dropbear-bin"),
    Tool(
        "usr/lib/sftp-server",
        ("usr/lib/openssh/sftp-server", "usr/libexec/openssh/sftp-server", "usr/lib/ssh/sftp-server"),
        "openssh-sftp-server",
    ),
)

#: Libraries of dropbear that come in packages of their own.
_LIBRARY_PACKAGES = ("libtomcrypt1", "libtommath1", "libgmp10")

#: Until 2.34 glibc loads this at run time to read /etc/passwd; later it is an empty shell.
_OPTIONAL_LIBRARIES = ("libnss_files.so.2",)

_LIBRARY_DIRECTORIES = ("lib/{triplet}", "usr/lib/{triplet}", "lib64", "usr/lib64", "lib", "usr/lib")
_TRIPLETS = {62: "x86_64-linux-gnu", 183: "aarch64-linux-gnu"}

_HINT = "apt-get install busybox-static dropbear-bin openssh-sftp-server"


@dataclass(slots=True)
class Programs:
    """What was found.

    Attributes:
        files: content by place in the toolbox.
        busybox: where busybox is on this host.
        loader: file name of the dynamic loader.
        missing: what was not found: tools, then libraries by their sonames.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    busybox: Path = Path()
    loader: str = ""
    missing: list[str] = field(default_factory=list)


def find_programs(cache: Path, operation: Operation) -> Programs:
    """Every tool with its libraries: the host's own, else its distribution's, unpacked once below ``cache``.

    Raises:
        BangerError: ``unavailable`` if something is still missing then.
    """
    host = Path("/")
    programs = collect([host])
    if not programs.missing:
        return programs
    wanted = [tool.package for tool in TOOLS if tool.name in programs.missing] + list(_LIBRARY_PACKAGES)
    unpacked = cache / f"packages-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:16]}"
    if unpacked.is_dir():
        os.utime(unpacked)  # in use: not to be taken for stale
    elif packages.is_available(operation.token):
        with operation.step("download toolbox"):
            _unpack_packages(wanted, unpacked, operation)
    programs = collect([unpacked, host])
    if programs.missing:
        names = ", ".join(programs.missing)
        raise BangerError(ErrorKind.UNAVAILABLE, f"this host lacks {names}, which guests need", hint=_HINT)
    return programs


def check_applets(busybox: Path, wanted: Sequence[str], operation: Operation) -> None:
    """Raise ``unavailable`` unless busybox was built with every one of ``wanted``."""
    try:
        present = output_of([str(busybox), "--list"], operation.token).decode().split()
    except ProgramError as error:
        raise BangerError(ErrorKind.UNAVAILABLE, f'cannot run "{busybox}"', cause=error.words, hint=_HINT) from error
    lacking = [applet for applet in wanted if applet not in present]
    if lacking:
        raise BangerError(
            ErrorKind.UNAVAILABLE,
            f'"{busybox}" was built without {", ".join(lacking)}',
            subject=str(busybox),
            hint=_HINT,
        )


def collect(roots: Sequence[Path]) -> Programs:
    """Find every tool and all the libraries they need below ``roots``, the earlier ones preferred."""
    programs = Programs()
    wanted: list[tuple[str, int]] = []
    for tool in TOOLS:
        found = _find_tool(tool, roots)
        if found is None:
            programs.missing.append(tool.name)
            continue
        path, content, linkage = found
        programs.files[tool.path] = content
        if tool is BUSYBOX:
            programs.busybox = path
        if linkage.interpreter:
            programs.loader = PurePosixPath(linkage.interpreter).name
            wanted += [(name, linkage.machine) for name in (programs.loader, *_OPTIONAL_LIBRARIES, *linkage.needed)]
    _add_libraries(programs, wanted, roots)
    return programs


def _unpack_packages(wanted: Sequence[str], target: Path, operation: Operation) -> None:
    """Download and unpack aside, then rename: another maker who was faster is as good."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-") as scratch:
        root = Path(scratch, "root")
        root.mkdir()
        for package in packages.download(wanted, Path(scratch), operation.token):
            packages.unpack(package, root, operation.token)
        with suppress(FileExistsError, NotADirectoryError):
            root.rename(target)


def _find_tool(tool: Tool, roots: Sequence[Path]) -> tuple[Path, bytes, Linkage] | None:
    for root in roots:
        for place in tool.places:
            found = _read(root / place)
            if found and (found[1].is_static or not tool.static):
                return root / place, *found
    return None


def _add_libraries(programs: Programs, wanted: list[tuple[str, int]], roots: Sequence[Path]) -> None:
    """All go to one directory, where glibc's loader looks on every distribution (``lib64`` is a link to it)."""
    done: set[str] = set()
    while wanted:
        name, machine = wanted.pop()
        if name in done:
            continue
        done.add(name)
        found = _find_library(name, machine, roots)
        if found is not None:
            content, linkage = found
            programs.files[f"lib/{name}"] = content
            wanted += [(needed, machine) for needed in linkage.needed]
        elif name not in _OPTIONAL_LIBRARIES:
            programs.missing.append(name)


def _find_library(name: str, machine: int, roots: Sequence[Path]) -> tuple[bytes, Linkage] | None:
    for root in roots:
        for directory in _LIBRARY_DIRECTORIES:
            found = _read(root / directory.format(triplet=_TRIPLETS.get(machine, "")) / name)
            if found and found[1].machine == machine:
                return found
    return None


def _read(path: Path) -> tuple[bytes, Linkage] | None:
    """A file and its linkage, if it is there and is an ELF file of this word size."""
    try:
        content = path.read_bytes()
        return content, read_linkage(io.BytesIO(content))
    except (OSError, ValueError):
        return None
