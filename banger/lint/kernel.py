"""A kernel's build options, and those that banger, an init or an image's programs need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from banger.lint.finding import Finding, Severity

_OFF = ("", "n")
#: What the boot of any VM needs: disks, the overlay over the image, the initrd, and what the programs in it use.
_BOOT = (
    "BLK_DEV_INITRD",
    "BINFMT_ELF",
    "BINFMT_SCRIPT",
    "DEVTMPFS",
    "EXT4_FS",
    "INET",
    "OVERLAY_FS",
    "PROC_FS",
    "SYSFS",
    "TMPFS",
    "UNIX",
    "UNIX98_PTYS",
    "VIRTIO_BLK",
)
#: Which transport carries the disks depends on the machine; one of them has to be there.
_TRANSPORTS = ("VIRTIO_MMIO", "VIRTIO_PCI")
_NETWORK = ("VIRTIO_NET",)
#: systemd's own README, "REQUIREMENTS".
_SYSTEMD = ("CGROUPS", "EPOLL", "FHANDLE", "INOTIFY_USER", "NET", "SIGNALFD", "TIMERFD")
_HINT = "choose another kernel: banger kernel list"


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What is known of a kernel.

    Attributes:
        version: its release, as ``uname -r`` says; empty if unknown.
        options: ``CONFIG_`` options without that prefix, to their values (``y``, ``m``, text); ``None`` if its
            configuration is not known. An option that is off is not in there.
        has_modules: modules come with it, so that ``m`` is as good as ``y``.
    """

    version: str
    options: Mapping[str, str] | None = None
    has_modules: bool = True

    @classmethod
    def from_config(cls, version: str, text: str, *, has_modules: bool = True) -> KernelFacts:
        """Read a ``.config`` (``/boot/config-*``): ``CONFIG_X=y`` lines and comments."""
        options = {}
        for line in text.splitlines():
            key, equals, value = line.strip().partition("=")
            if equals and key.startswith("CONFIG_") and value not in _OFF:
                options[key.removeprefix("CONFIG_")] = value
        return cls(version, options, has_modules)

    def lacks(self, names: Iterable[str]) -> Sequence[str]:
        """Which of ``names`` the kernel does not have, as far as that is known."""
        options = self.options
        if options is None:
            return ()
        return [name for name in names if not self._has(options.get(name, ""))]

    def _has(self, value: str) -> bool:
        return value not in _OFF and (value != "m" or self.has_modules)


def check_kernel(kernel: KernelFacts, *, with_systemd: bool, with_32_bit: bool) -> Iterator[Finding]:
    """What the kernel lacks.

    Args:
        kernel: its facts.
        with_systemd: systemd is the image's init.
        with_32_bit: the image has 32-bit x86 programs.
    """
    lacking = list(kernel.lacks(_BOOT))
    if len(kernel.lacks(_TRANSPORTS)) == len(_TRANSPORTS):
        lacking.append(" or ".join(_TRANSPORTS))
    if lacking:
        yield Finding(Severity.ERROR, "kernel-boot", _without(kernel, lacking, "no VM boots without"), _HINT)
    if lacking := list(kernel.lacks(_NETWORK)):
        yield Finding(
            Severity.WARNING, "kernel-network", _without(kernel, lacking, "there is no network without"), _HINT
        )
    if with_systemd and (lacking := list(kernel.lacks(_SYSTEMD))):
        message = _without(kernel, lacking, "the image's systemd does not run without")
        yield Finding(Severity.ERROR, "kernel-systemd", message, _HINT)
    if with_32_bit and (lacking := list(kernel.lacks(["IA32_EMULATION"]))):
        message = _without(kernel, lacking, "the image's 32-bit programs do not run without")
        yield Finding(Severity.ERROR, "kernel-32-bit", message, _HINT)


def _without(kernel: KernelFacts, options: Sequence[str], why: str) -> str:
    name = f'the kernel "{kernel.version}"' if kernel.version else "the kernel"
    return f"{name} lacks {', '.join(options)}; {why}"
