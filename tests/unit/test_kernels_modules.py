"""Which modules a boot needs, and in what order."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from banger.core.errors import BangerError
from banger.core.operation import Operation
from banger.kernels.modules import load_order, parse_dependencies, read_modules
from banger.rootfs.build import build_from_directory
from tests.support.ext4_reader import needs_e2fsprogs

DEP = """\
kernel/drivers/virtio/virtio.ko:
kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_mmio.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko
kernel/fs/overlayfs/overlay.ko:
"""


def names(paths: list[str]) -> list[str]:
    return [Path(path).name.removesuffix(".ko") for path in paths]


def test_modules_load_after_what_they_depend_on_and_once() -> None:
    order = load_order(parse_dependencies(DEP), ["virtio_mmio", "virtio_net"])
    assert names(order) == ["virtio", "virtio_ring", "virtio_mmio", "failover", "net_failover", "virtio_net"]


def test_module_is_found_whether_its_name_has_dashes_or_underscores() -> None:
    assert names(load_order(parse_dependencies(DEP), ["virtio_rng"])) == ["virtio", "virtio-rng"]


def test_module_that_is_built_in_is_left_out() -> None:
    assert names(load_order(parse_dependencies(DEP), ["ext4", "overlay"])) == ["overlay"]


@given(st.data())
def test_order_of_any_dependency_graph_never_puts_a_module_before_its_own(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 9))
    graph = {
        f"kernel/m{n}.ko": tuple(f"kernel/m{d}.ko" for d in data.draw(st.lists(st.integers(0, n - 1), unique=True)))
        if n
        else ()
        for n in range(count)
    }
    order = load_order(graph, [f"m{n}" for n in data.draw(st.lists(st.integers(0, count - 1)))])
    assert len(set(order)) == len(order)
    for path in order:
        assert all(order.index(dependency) < order.index(path) for dependency in graph[path])


def image_of(tree: Path) -> Path:
    """A kernel's modules as staging leaves them."""
    image = tree.with_suffix(".ext4")
    build_from_directory(tree, image, operation=Operation("kernel.pull", "x"), size_bytes=16 << 20)
    return image


@needs_e2fsprogs
@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_packed_module_is_unpacked_for_the_guest(suffix: str, pack: type[bytes], tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / f"kernel/overlay.ko{suffix}").write_bytes(pack(b"\x7fELF module"))
    (tmp_path / "modules.dep").write_text(f"kernel/overlay.ko{suffix}:\n")
    [module] = read_modules(image_of(tmp_path), ["overlay"])
    assert (module.file_name, module.content) == ("overlay.ko", b"\x7fELF module")


@needs_e2fsprogs
def test_tree_without_an_index_gives_no_modules(tmp_path: Path) -> None:
    assert read_modules(image_of(tmp_path), ["overlay"]) == []


def test_kernel_without_an_image_has_no_modules(tmp_path: Path) -> None:
    assert read_modules(tmp_path / "none.ext4", ["overlay"]) == []


@needs_e2fsprogs
def test_index_that_names_a_missing_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/overlay.ko:\n")
    with pytest.raises(BangerError, match=r"overlay\.ko"):
        read_modules(image_of(tmp_path), ["overlay"])
