"""The directory that every kernel source fills: ``vmlinuz``, ``modules/`` and ``initrd``; and its completion.

``vmlinuz`` is the kernel as it was given, whatever its format; ``modules/`` is the content of ``lib/modules/RELEASE``.
From that tree is made ``modules.ext4``: one file to sync and delete instead of thousands, and a disk that VMs share.
Beside them are ``kernel.json`` and, if the modules came with it, ``config``, what the kernel was built with.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel
from banger.kernels import local_files
from banger.kernels.image_file import KernelFile, fault_of, inspect
from banger.posix.programs import ProgramError, output_of
from banger.rootfs.build import build_from_directory

KERNEL, MODULES, INITRD, METADATA = "vmlinuz", "modules", "initrd", "kernel.json"
MODULES_IMAGE, CONFIG = "modules.ext4", "config"

#: Links that a distribution's tree has into its header packages; they lead nowhere in a guest.
_FOREIGN_LINKS = ("build", "source")

#: Programs that can index a module tree, in the order to try them.
DEPMOD = (("depmod",), ("/sbin/depmod",), ("busybox", "depmod"))

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}


def recognise(kernel: Path, machine: str = "") -> KernelFile:
    """What ``kernel`` is; raises ``invalid`` if it is no kernel or is none for ``machine`` (default: this host's)."""
    file = inspect(local_files.read_kernel(kernel), kernel.name)
    machine = machine or platform.machine()
    wanted = _ARCHITECTURES.get(machine, machine)
    if file.architecture != wanted:
        raise BangerError(
            ErrorKind.INVALID,
            f'"{kernel.name}" is a kernel for {file.architecture}, this host is {wanted}',
            subject=kernel.name,
            hint=f"give a kernel that was built for {wanted}",
        )
    return file


def finish(staging: Path, file: KernelFile, source: str, cmdline: str, operation: Operation) -> BuiltKernel:
    """Complete what a source has put into ``staging``, and describe it.

    A damaged kernel is taken all the same, and that is told: it is what was asked for, and the damage may not count.

    Raises:
        BangerError: ``invalid`` if there is more than files, directories and symbolic links among the modules;
            ``exhausted``; ``unavailable`` without e2fsprogs; ``cancelled``.
    """
    if fault := fault_of((staging / KERNEL).read_bytes()):
        operation.note(f"this kernel seems to be damaged, and may not boot: {fault}")
    modules = staging / MODULES
    has_modules = modules.is_dir()
    if has_modules:
        for name in _FOREIGN_LINKS:
            if (modules / name).is_symlink():
                (modules / name).unlink()
        if not (modules / "modules.dep").exists():
            with operation.step("index modules"):
                _run_depmod(staging, file.version, operation)
    with operation.step("checksum"):
        digest, size = _digest(staging, operation.token)
    if has_modules:
        _make_image(staging, operation)
    built = BuiltKernel(
        version=file.version,
        source=source,
        digest=digest,
        platform=f"linux/{file.architecture}",
        format=file.format,
        size_bytes=size,
        has_modules=has_modules,
        has_initrd=(staging / INITRD).exists(),
        cmdline=cmdline,
    )
    (staging / METADATA).write_text(json.dumps(asdict(built), indent=2, sort_keys=True) + "\n")
    return built


def _run_depmod(staging: Path, version: str, operation: Operation) -> None:
    """``depmod`` wants to see ``lib/modules/RELEASE``: give it a view of that shape.

    Without any depmod the kernel still boots if it has its drivers built in, so that is a note and no failure.
    """
    view = staging / ".depmod"
    release = version or "0"
    (view / "lib" / "modules").mkdir(parents=True)
    (view / "lib" / "modules" / release).symlink_to(staging.absolute() / MODULES)
    failure = ""
    try:
        for program in DEPMOD:
            try:
                output_of([*program, "-b", str(view.absolute()), release], operation.token)
            except ProgramError as error:
                failure = error.words
            except BangerError as error:
                if error.kind is not ErrorKind.UNAVAILABLE:
                    raise
                failure = failure or error.message
            else:
                return
        operation.note(f"the modules of this kernel cannot be indexed, guests will have none ({failure})")
    finally:
        shutil.rmtree(view)


def _make_image(staging: Path, operation: Operation) -> None:
    """Turn the module tree into a file system, whose content depends on names, contents and who may execute."""
    tree = staging / MODULES
    config = tree / CONFIG
    if config.is_file() and not config.is_symlink():
        shutil.copyfile(config, staging / CONFIG)
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (0, 0), follow_symlinks=False)
    build_from_directory(tree, staging / MODULES_IMAGE, operation=operation)
    shutil.rmtree(tree)


def _digest(staging: Path, token: CancelToken) -> tuple[str, int]:
    """``sha256:…`` of names and contents, and the sum of the sizes: equal content, equal digest."""
    digest = hashlib.sha256()
    size = 0
    for path in _files(staging):
        token.raise_if_cancelled()
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(staging)}\0{content}\n".encode())
        size += path.stat().st_size
    return f"sha256:{digest.hexdigest()}", size


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
