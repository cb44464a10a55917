"""The complete lint of an image, with or without the kernel that is to boot it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from banger.lint import census, files, programs
from banger.lint.finding import Finding, Severity
from banger.lint.kernel import KernelFacts, check_kernel
from banger.rootfs.ext4.reader import Ext4Reader
from banger.rootfs.refusals import shown

_SEVERITIES = list(Severity)


def lint_rootfs(
    image: Ext4Reader,
    kernel: KernelFacts | None = None,
    *,
    machine: str = "x86_64",
    check: Callable[[], None] = lambda: None,
) -> list[Finding]:
    """Look at an image without running or mounting anything of it.

    Args:
        image: open; its content is taken for hostile.
        kernel: that is to run it; without one nothing is said about kernels.
        machine: the host's architecture, as ``uname -m`` says.
        check: called often; may raise to end the lint (``token.raise_if_cancelled``).

    Returns:
        What was found: errors first, then warnings, then facts. No errors means: a VM comes up, as far as can be seen.

    Raises:
        BangerError: ``invalid`` if the file system is damaged.
    """
    found = list(_findings(image, kernel, machine, check))
    return sorted(found, key=lambda finding: _SEVERITIES.index(finding.severity))


def _findings(
    image: Ext4Reader, kernel: KernelFacts | None, machine: str, check: Callable[[], None]
) -> Iterator[Finding]:
    init = programs.find_init(image)
    samples = programs.sample(image)
    yield from files.check_release(image)
    yield from programs.check_init(image, init)
    yield from programs.check_shell(image)
    yield from programs.check_programs(image, samples, machine)
    yield from files.check_directories(image)
    yield from files.check_accounts(image)
    yield from files.check_resolver(image, init)
    if kernel is not None:
        yield from _check_modules(image, kernel)
        with_systemd = init is programs.Init.SYSTEMD
        yield from check_kernel(kernel, with_systemd=with_systemd, with_32_bit=programs.uses_32_bit(samples))
    yield from census.check_census(image, census.take_census(image, check))


def _check_modules(image: Ext4Reader, kernel: KernelFacts) -> Iterator[Finding]:
    """Say whose modules the VM will use: those of the image, if it has any for this very kernel."""
    if not kernel.version:
        return
    path = f"/lib/modules/{kernel.version}".encode()
    if image.find(path + b"/modules.dep") is not None:
        yield Finding(Severity.INFO, "modules-own", f"the image has the kernel's modules in {shown(path)}")
    elif kernel.has_modules:
        yield Finding(Severity.INFO, "modules-missing", f"the image has no {shown(path)}; banger brings the modules")
    else:
        message = f"neither the image nor the kernel brings modules for {shown(kernel.version.encode())}"
        yield Finding(Severity.INFO, "modules-none", message)
