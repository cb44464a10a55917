"""Kernels from local files: an image, and optionally its modules and an initrd."""

from __future__ import annotations

import shutil
from pathlib import Path

from banger.core.cancel import CancelToken
from banger.core.errors import BangerError, ErrorKind
from banger.core.operation import Operation
from banger.core.ports import BuiltKernel, KernelRequest
from banger.kernels import local_files, staging

#: What only the top of a module tree has.
_TREE_MARKS = ("modules.dep", "modules.order", "modules.builtin", "kernel")


class FileKernelSource:
    """Copies local files; the originals are only read."""

    def handles(self, request: KernelRequest) -> bool:
        """True for a request that names a kernel file."""
        return bool(request.kernel_path)

    def build(self, request: KernelRequest, staging_dir: Path, operation: Operation) -> BuiltKernel:
        """Fill ``staging_dir``.

        Raises:
            BangerError: ``invalid`` if a file is not what it should be, ``not_found`` or ``denied`` if unreadable.
        """
        kernel = Path(request.kernel_path)
        try:
            found = staging.recognise(kernel)
            with operation.step("copy"):
                local_files.copy(kernel, staging_dir / staging.KERNEL, operation.token)
                if request.initrd_path:
                    local_files.copy(Path(request.initrd_path), staging_dir / staging.INITRD, operation.token)
                if request.modules_path:
                    tree = find_module_tree(Path(request.modules_path), found.version)
                    _copy_tree(tree, staging_dir / staging.MODULES, operation.token)
        except OSError as error:
            raise _unreadable(error, request.kernel_path) from error
        return staging.finish(staging_dir, found, request.kernel_path, request.cmdline, operation)


def find_module_tree(path: Path, version: str) -> Path:
    """The module tree that ``path`` means: itself, or ``lib/modules/VERSION`` below it.

    Raises:
        BangerError: ``invalid`` if there is none for this kernel.
    """
    if not path.is_dir():
        raise BangerError(
            ErrorKind.INVALID,
            f'"{path}" is not a directory',
            subject=str(path),
            hint="give the kernel's lib/modules/VERSION directory",
        )
    if any((path / mark).exists() for mark in _TREE_MARKS):
        return path
    for below in ("lib/modules", "usr/lib/modules", "."):
        if version and (path / below / version).is_dir():
            return path / below / version
    raise BangerError(
        ErrorKind.INVALID,
        f'"{path}" has no modules for kernel {version or "of unknown version"}',
        subject=str(path),
        hint="give the kernel's lib/modules/VERSION directory",
    )


def _copy_tree(source: Path, target: Path, token: CancelToken) -> None:
    def copy(original: str, copied: str) -> str:
        local_files.copy(Path(original), Path(copied), token)
        return copied

    shutil.copytree(source, target, symlinks=True, copy_function=copy)


def _unreadable(error: OSError, path: str) -> BangerError:
    subject = str(error.filename or path)
    kind = ErrorKind.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorKind.DENIED
    cause = error.strerror or str(error)
    return BangerError(kind, f'cannot read "{subject}"', subject=subject, cause=cause, hint=f"ls -l {subject}")
