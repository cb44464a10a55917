"""The distribution's real kernel package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from banger.core.operation import Operation
from banger.core.ports import KernelRequest
from banger.kernels.file_source import FileKernelSource
from banger.kernels.image_file import extract_vmlinux, inspect
from banger.kernels.lz4 import decompress_legacy
from banger.kernels.modules import read_modules
from tests.support.qemu_boot import debian_kernel


@pytest.fixture(scope="module")
def kernel() -> Path:
    """As :class:`AptKernelSource` fills it."""
    return debian_kernel()


def test_package_kernel_is_recognised_and_has_the_modules_of_its_release(kernel: Path) -> None:
    found = inspect((kernel / "vmlinuz").read_bytes(), "vmlinuz")
    assert found.format == "bzimage"
    modules = [module.file_name for module in read_modules(kernel / "modules.ext4", ["virtio_mmio", "overlay"])]
    assert modules[-1] == "overlay.ko"
    assert modules.index("virtio.ko") < modules.index("virtio_mmio.ko")
    [module] = read_modules(kernel / "modules.ext4", ["overlay"])
    assert f"vermagic={found.version} ".encode() in module.content


def test_package_kernel_unpacks_to_an_elf_file_of_the_same_release_that_can_be_imported(
    kernel: Path, tmp_path: Path
) -> None:
    packed = (kernel / "vmlinuz").read_bytes()
    (tmp_path / "vmlinux").write_bytes(extract_vmlinux(packed))
    (tmp_path / "staging").mkdir()
    request = KernelRequest(kernel_path=str(tmp_path / "vmlinux"))
    built = FileKernelSource().build(request, tmp_path / "staging", Operation("kernel.import", "x"))
    assert built.format == "elf"
    assert built.version == inspect(packed, "vmlinuz").version
    shutil.rmtree(tmp_path / "staging")


def test_lz4_program_and_decoder_agree(tmp_path: Path) -> None:
    lz4 = shutil.which("lz4")
    if not lz4:
        pytest.skip("needs lz4")
    data = Path(shutil.which("python3") or "/bin/sh").resolve().read_bytes() + bytes(9 << 20) + b"end"
    for level in ("-1", "-9"):
        packed = subprocess.run([lz4, "-l", level, "-c"], input=data, capture_output=True, check=True).stdout
        assert decompress_legacy(packed) == data
