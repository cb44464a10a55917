"""A kernel's file: its format, machine and release; and the plain ELF inside a bzImage.

Formats: Linux Documentation/arch/x86/boot.rst (header offsets are the boot protocol's), arch/arm64/booting.rst, ELF.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from banger.core.errors import BangerError, ErrorKind
from banger.kernels.compression import CompressionError, decompress
from banger.kernels.signature import is_as_signed
from banger.kernels.vmlinux import fault_of_elf
from banger.posix.elf import MAGIC

#: Set-up sectors of an image whose header leaves them out.
_DEFAULT_SETUP_SECTORS = 4
_SECTOR = 512
_KERNEL_64 = 1  # bit of xloadflags: the kernel has a 64-bit entry point
_ELF_MACHINES = {3: "386", 62: "amd64", 183: "arm64", 243: "riscv64"}
_BANNER = re.compile(rb"Linux version (\d[^\s%]*) ")
_HINT = "give a bzImage (vmlinuz) or an uncompressed vmlinux"


@dataclass(frozen=True, slots=True)
class KernelFile:
    """``format`` is ``bzimage`` or ``elf``, ``architecture`` an OCI name, ``version`` the release or empty."""

    format: str
    architecture: str
    version: str


def inspect(data: bytes, name: str) -> KernelFile:
    """Recognise a kernel; ``name`` is for messages.

    Raises:
        BangerError: ``invalid`` if it is no kernel that a VMM can load.
    """
    if _is_bzimage(data):
        architecture = "amd64" if struct.unpack_from("<H", data, 0x236)[0] & _KERNEL_64 else "386"
        return KernelFile("bzimage", architecture, _bzimage_version(data))
    if data.startswith(MAGIC):
        banner = _BANNER.search(data)
        if banner is None or len(data) < 64:
            raise _invalid(f'"{name}" is a program, not a kernel', name)
        machine = struct.unpack_from("<H", data, 18)[0]
        return KernelFile("elf", _ELF_MACHINES.get(machine, f"machine {machine}"), banner[1].decode(errors="replace"))
    if data[0x38:0x3C] == b"ARM\x64":
        raise _invalid(f'"{name}" is a kernel for arm64', name)
    raise _invalid(f'"{name}" is not a Linux kernel', name)


def extract_vmlinux(data: bytes) -> bytes:
    """The ELF file that a bzImage carries packed, for a VMM that loads nothing else.

    The header tells where the payload is, so nothing has to be searched for.

    Raises:
        BangerError: ``invalid`` if it is no bzImage, is damaged, or its packing is unknown (LZO).
    """
    if not _is_bzimage(data):
        raise _invalid("not a bzImage", "")
    sectors = data[0x1F1] or _DEFAULT_SETUP_SECTORS
    offset, size = struct.unpack_from("<II", data, 0x248)
    start = (sectors + 1) * _SECTOR + offset
    try:
        kernel = decompress(data[start : start + size])
    except CompressionError as error:
        raise _invalid("the bzImage is damaged", "", str(error)) from error
    if not kernel.startswith(MAGIC):
        raise _invalid("the bzImage holds no ELF file in a known packing", "")
    return kernel


def fault_of(data: bytes) -> str:
    """What is wrong with a kernel's file, as far as it can be told without running it; empty if nothing is.

    A signed bzImage tells everything. Of another one there are the checksums of its packing (LZ4 has none), the
    unpacked size, and what can be told of the ELF file in it, as of one that is not packed.
    """
    try:
        if not _is_bzimage(data):
            return fault_of_elf(data)
        sectors = data[0x1F1] or _DEFAULT_SETUP_SECTORS
        offset, size = struct.unpack_from("<II", data, 0x248)
        start = (sectors + 1) * _SECTOR + offset
        if start + size > len(data):
            return f"it is cut short, {len(data)} bytes of at least {start + size}"
        as_signed = is_as_signed(data)
        if as_signed is not None:
            return "" if as_signed else "it is not what its distribution signed"
        return _payload_fault(data[start : start + size])
    except (CompressionError, struct.error) as error:
        return f"its payload cannot be unpacked ({error})"


def _payload_fault(payload: bytes) -> str:
    """What is wrong with what a bzImage unpacks. Its last four bytes are the unpacked size, whatever the packing."""
    kernel = decompress(payload)
    (promised,) = struct.unpack("<I", payload[-4:])
    if len(kernel) & 0xFFFFFFFF != promised:
        return f"its payload cannot be unpacked (to {len(kernel)} bytes instead of {promised})"
    return fault_of_elf(kernel) if kernel.startswith(MAGIC) else ""


def _is_bzimage(data: bytes) -> bool:
    """Boot protocol 2.08 or later: older headers do not locate the payload (Linux 2.6.26, 2008)."""
    return (
        len(data) > 0x260
        and data[0x1FE:0x200] == b"\x55\xaa"
        and data[0x202:0x206] == b"HdrS"
        and struct.unpack_from("<H", data, 0x206)[0] >= 0x0208
    )


def _bzimage_version(data: bytes) -> str:
    """The header points to a text, ``RELEASE (builder) #build date``; the pointer leaves out the first sector."""
    pointer = struct.unpack_from("<H", data, 0x20E)[0]
    if pointer == 0:
        return ""
    text = data[pointer + _SECTOR : pointer + _SECTOR + 256].partition(b"\0")[0]
    return text.decode(errors="replace").partition(" ")[0]


def _invalid(message: str, subject: str, cause: str = "") -> BangerError:
    return BangerError(ErrorKind.INVALID, message, subject=subject, cause=cause, hint=_HINT)
