"""What a lint says of a kernel's configuration."""

from __future__ import annotations

import pytest

from banger.lint.finding import Severity
from banger.lint.kernel import KernelFacts, check_kernel

#: Everything that any image asks for.
GOOD = """
# a comment
CONFIG_BINFMT_ELF=y
CONFIG_BINFMT_SCRIPT=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_CGROUPS=y
CONFIG_DEVTMPFS=y
CONFIG_EPOLL=y
CONFIG_EXT4_FS=y
CONFIG_FHANDLE=y
CONFIG_IA32_EMULATION=y
CONFIG_INET=y
CONFIG_INOTIFY_USER=y
CONFIG_LOCALVERSION="-my=own"
CONFIG_NET=y
CONFIG_OVERLAY_FS=m
CONFIG_PROC_FS=y
CONFIG_SIGNALFD=y
CONFIG_SYSFS=y
CONFIG_TIMERFD=y
CONFIG_TMPFS=y
CONFIG_UNIX=y
CONFIG_UNIX98_PTYS=y
CONFIG_VIRTIO_BLK=m
CONFIG_VIRTIO_MMIO=m
CONFIG_VIRTIO_NET=m
CONFIG_VIRTIO_PCI=y
"""


def codes(text: str | None, *, has_modules: bool = True, systemd: bool = False, bits: bool = False) -> dict[str, str]:
    kernel = KernelFacts("6.1", None) if text is None else KernelFacts.from_config("6.1", text, has_modules=has_modules)
    return {found.code: found.message for found in check_kernel(kernel, with_systemd=systemd, with_32_bit=bits)}


def without(*names: str) -> str:
    return "\n".join(
        line for line in GOOD.splitlines() if not any(line.startswith(f"CONFIG_{name}=") for name in names)
    )


def test_kernel_with_everything_raises_no_finding() -> None:
    assert codes(GOOD, systemd=True, bits=True) == {}


def test_kernel_of_unknown_configuration_raises_no_finding() -> None:
    assert codes(None, systemd=True, bits=True) == {}


def test_kernel_options_are_read_with_their_values() -> None:
    kernel = KernelFacts.from_config("6.1", GOOD + "# CONFIG_OFF is not set\nCONFIG_NO=n\nCONFIG_EMPTY=\n")
    assert kernel.options is not None
    assert kernel.options["LOCALVERSION"] == '"-my=own"'
    assert kernel.lacks(["OFF", "NO", "EMPTY", "NEVER", "VIRTIO_NET"]) == ["OFF", "NO", "EMPTY", "NEVER"]


def test_kernel_without_overlayfs_boots_no_vm() -> None:
    assert codes(without("OVERLAY_FS", "VIRTIO_BLK")) == {
        "kernel-boot": 'the kernel "6.1" lacks OVERLAY_FS, VIRTIO_BLK; no VM boots without'
    }


def test_kernel_with_one_of_the_transports_is_enough() -> None:
    assert codes(without("VIRTIO_MMIO")) == codes(without("VIRTIO_PCI")) == {}
    assert "VIRTIO_MMIO or VIRTIO_PCI" in codes(without("VIRTIO_MMIO", "VIRTIO_PCI"))["kernel-boot"]


def test_kernel_whose_modules_are_missing_has_only_what_is_built_in() -> None:
    found = codes(GOOD, has_modules=False)
    assert found.keys() == {"kernel-boot", "kernel-network"}
    assert "OVERLAY_FS, VIRTIO_BLK" in found["kernel-boot"]


@pytest.mark.parametrize(
    ("missing", "wish", "code"), [("CGROUPS", "systemd", "kernel-systemd"), ("IA32_EMULATION", "bits", "kernel-32-bit")]
)
def test_kernel_is_asked_for_what_the_image_needs_only(missing: str, wish: str, code: str) -> None:
    assert codes(without(missing)) == {}
    assert list(codes(without(missing), **{wish: True})) == [code]  # type: ignore[arg-type]


def test_kernel_without_a_network_is_a_warning() -> None:
    kernel = KernelFacts.from_config("", without("VIRTIO_NET"))
    (found,) = check_kernel(kernel, with_systemd=False, with_32_bit=False)
    assert (found.severity, found.message) == (
        Severity.WARNING,
        "the kernel lacks VIRTIO_NET; there is no network without",
    )
