"""Short names for images and kernels: what banger ships, and what the user adds or overrides."""

from banger.catalog.catalog import Catalog, CatalogEntry
from banger.catalog.pins import check_pin
from banger.catalog.resolve import ImageLocation, KernelLocation, resolve_image, resolve_kernel

__all__ = [
    "Catalog",
    "CatalogEntry",
    "ImageLocation",
    "KernelLocation",
    "check_pin",
    "resolve_image",
    "resolve_kernel",
]
