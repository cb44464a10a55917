"""The route that lints an image."""

from __future__ import annotations

import os
import platform
import stat
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from banger.api.artifacts import show_image
from banger.api.context import ApiContext, context_of
from banger.api.threads import run_in_thread
from banger.core import codec
from banger.core.cancel import CancelToken
from banger.core.models import Image, Kernel
from banger.lint.finding import Severity
from banger.lint.kernel import KernelFacts
from banger.lint.rootfs import lint_rootfs
from banger.rootfs.ext4.reader import Ext4Reader

#: A kernel's build configuration, if it came with one, lies beside it.
_CONFIG = "config"
#: Real ones have a quarter of a mebibyte.
_MAX_CONFIG_BYTES = 4 << 20


async def lint_image(request: Request) -> Response:
    """What an image, with ``?kernel=`` or the kernel that it wants, would do in a VM."""
    if not request.scope["raw_path"].endswith(b"/lint"):  # the slash came encoded: it belongs to an image's name
        request.path_params["query"] += "/lint"
        return await show_image(request)
    context = context_of(request)
    image = context.store.images.find(request.path_params["query"])
    wanted = request.query_params.get("kernel")
    kernel = context.store.kernels.find(wanted) if wanted else _own_kernel(context, image)
    token = CancelToken()
    return JSONResponse(await run_in_thread(request, token, lambda: _report(context, image, kernel, token)))


def _own_kernel(context: ApiContext, image: Image) -> Kernel | None:
    """The kernel that the image wants, as far as it is here."""
    kernels = context.store.kernels
    if image.kernel_digest and (exact := kernels.by_digest(image.kernel_digest)):
        return exact
    return kernels.by_name(image.kernel) if image.kernel else None


def _report(context: ApiContext, image: Image, kernel: Kernel | None, token: CancelToken) -> dict[str, Any]:
    facts = _facts(context.layout.kernel_dir(kernel.id), kernel) if kernel else None
    with Ext4Reader(context.layout.image_rootfs(image)) as rootfs:
        findings = lint_rootfs(rootfs, facts, machine=platform.machine(), check=token.raise_if_cancelled)
    return {
        "image": image.name or image.id,
        "kernel": (kernel.name or kernel.id) if kernel else "",
        "kernel_config": facts is not None and facts.options is not None,
        "errors": sum(finding.severity is Severity.ERROR for finding in findings),
        "warnings": sum(finding.severity is Severity.WARNING for finding in findings),
        "findings": codec.to_plain(findings),
    }


def _facts(directory: Path, kernel: Kernel) -> KernelFacts:
    text = _read_config(directory / _CONFIG)
    if text:
        return KernelFacts.from_config(kernel.version, text, has_modules=kernel.has_modules)
    return KernelFacts(kernel.version, has_modules=kernel.has_modules)


def _read_config(path: Path) -> str:
    """A regular file's text, or nothing. It came from outside with the modules."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return file.read(_MAX_CONFIG_BYTES).decode(errors="replace")
