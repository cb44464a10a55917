"""Which files of a kernel's module tree a boot needs, and in what order they load.

``modules.dep`` (``depmod(8)``): one line per module, ``PATH: DEPENDENCY...``, paths relative to the tree, what a module
depends on before what that depends on. What the kernel has built in is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from banger.kernels.compression import decompress
from banger.rootfs.ext4.reader import Ext4Reader


@dataclass(frozen=True, slots=True)
class Module:
    """A module as the kernel takes it: ``name.ko``, not compressed."""

    file_name: str
    content: bytes


def load_order(dependencies: Mapping[str, tuple[str, ...]], wanted: Iterable[str]) -> list[str]:
    """Paths of the wanted modules and of all they depend on, each after its own dependencies.

    Args:
        dependencies: :func:`parse_dependencies`.
        wanted: names, dashes and underscores alike; those the tree does not have are taken to be built in.
    """
    by_name = {module_name(path): path for path in dependencies}
    order: dict[str, None] = {}

    def add(path: str) -> None:
        for dependency in reversed(dependencies.get(path, ())):
            if dependency not in order:
                add(dependency)
        order.setdefault(path)

    for name in wanted:
        path = by_name.get(name.replace("-", "_"))
        if path is not None:
            add(path)
    return list(order)


def parse_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """Read a ``modules.dep``."""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {path.strip(): tuple(rest.split()) for path, _, rest in lines}


def module_name(path: str) -> str:
    """``kernel/drivers/char/hw_random/virtio-rng.ko.xz`` is ``virtio_rng``."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def read_modules(image: Path, wanted: Iterable[str]) -> list[Module]:
    """The wanted modules of a kernel, in load order; none if it has no ``modules.dep``.

    Args:
        image: an ext4 with the content of ``lib/modules/RELEASE``; it may be missing.
        wanted: see :func:`load_order`.

    Raises:
        BangerError: ``invalid`` or ``not_found`` if the image is damaged.
    """
    if not image.exists():
        return []
    with Ext4Reader(image) as tree:
        index = tree.find(b"modules.dep")
        if index is None:
            return []
        paths = load_order(parse_dependencies(tree.open(index).readall().decode()), wanted)
        return [Module(f"{module_name(path)}.ko", decompress(_content(tree, path))) for path in paths]


def _content(tree: Ext4Reader, path: str) -> bytes:
    return tree.open(tree.resolve(path.encode())).readall()
