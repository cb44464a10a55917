"""Images and kernels in the Python SDK: typed, one method per verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from banger.client import Client, OnEvent, path_of
from banger.core.codec import from_plain
from banger.core.models import Image, Kernel
from banger.core.wire.images import (
    CommitBody,
    ExportImageBody,
    PullImageBody,
    PushImageBody,
    RegisterImageBody,
    TagImageBody,
)
from banger.core.wire.kernels import PullKernelBody, PushKernelBody
from banger.core.wire.sizes import NO_SIZES, DefaultSizes
from banger.core.wire.system import PruneBody

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune removed (or, on a dry run, would remove), a line each, and the bytes that this frees.

    ``kept`` was taken into use meanwhile.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    freed_bytes: int


class Images:
    """The images."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[Image]:
        """All of them."""
        return [typed(Image, row) for row in self._client.get("/v1/images")]

    def get(self, query: str) -> Image:
        """The one with this name, id, or unique prefix of either."""
        return typed(Image, self._client.get(path_of("images", query)))

    def pull(
        self,
        reference: str,
        *,
        name: str = "",
        platform: str = "",
        plain_http: bool = False,
        size_mib: int = 0,
        on_event: OnEvent | None = None,
    ) -> Image:
        """Pull one from a registry or the catalog; an unchanged one is not downloaded again."""
        body = PullImageBody(reference, name, platform, plain_http, size_mib)
        return self._made("/v1/images/pull", body, on_event)

    def register(
        self,
        rootfs: Path | str,
        *,
        name: str = "",
        kernel: str = "",
        work_seed: Path | str = "",
        on_event: OnEvent | None = None,
    ) -> Image:
        """Use an existing ext4 file, in place; its name is that of the file unless ``name`` is given."""
        path = Path(rootfs).absolute()
        seed_path = str(Path(work_seed).absolute()) if work_seed else ""
        body = RegisterImageBody(name or path.stem, str(path), kernel, seed_path)
        return self._made("/v1/images/register", body, on_event)

    def promote(self, query: str, *, on_event: OnEvent | None = None) -> Image:
        """Copy a registered one into banger's own store."""
        return self._made(path_of("images", query, "promote"), None, on_event)

    def tag(self, query: str, name: str) -> Image:
        """Add a name to one."""
        return self._made(path_of("images", query, "tag"), TagImageBody(name), None)

    def commit(self, vm: str, name: str, *, keep: Sequence[str] = (), on_event: OnEvent | None = None) -> Image:
        """Make one from the disk of a stopped machine.

        Args:
            vm: the machine's name or id.
            name: of the image.
            keep: paths to leave in though they tell machines apart, such as ``/etc/machine-id``.
            on_event: gets the events of the work.
        """
        return self._made(path_of("vms", vm, "commit"), CommitBody(name, tuple(keep)), on_event)

    def export(
        self,
        query: str,
        file: Path | str,
        *,
        form: str = "bundle",
        sizes: DefaultSizes | None = None,
        on_event: OnEvent | None = None,
    ) -> Path:
        """Write one to a new file, as a ``bundle`` or as an ``oci`` image for other tools; the file.

        A bundle suggests ``sizes`` for its machines, or what the image itself does.
        """
        body = ExportImageBody(str(Path(file).absolute()), form, sizes or NO_SIZES)
        written = self._client.long("POST", path_of("images", query, "export"), body=body, on_event=on_event)
        return Path(written["path"])

    def push(
        self,
        query: str,
        reference: str,
        *,
        form: str = "bundle",
        plain_http: bool = False,
        sizes: DefaultSizes | None = None,
        on_event: OnEvent | None = None,
    ) -> str:
        """Upload one to a registry as :meth:`export` writes it; the digest of its manifest there."""
        body = PushImageBody(reference, form, plain_http, sizes or NO_SIZES)
        path = path_of("images", query, "push")
        return str(self._client.long("POST", path, body=body, on_event=on_event)["digest"])

    def prune(self, *, unused: bool = False, dry_run: bool = False) -> Pruned:
        """Delete content and downloads that are not needed; with ``unused`` also named ones that no machine uses."""
        return _prune(self._client, "image", unused=unused, dry_run=dry_run)

    def delete(self, query: str, *, force: bool = False) -> None:
        """Delete one that no machine uses; ``force`` removes its name now, its content with the last machine."""
        self._client.long("DELETE", path_of("images", query), {"force": True} if force else None)

    def _made(self, path: str, body: Any, on_event: OnEvent | None) -> Image:
        return typed(Image, self._client.long("POST", path, body=body, on_event=on_event))


class Kernels:
    """The kernels."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self) -> list[Kernel]:
        """All of them."""
        return [typed(Kernel, row) for row in self._client.get("/v1/kernels")]

    def get(self, query: str) -> Kernel:
        """The one with this name, id, or unique prefix of either."""
        return typed(Kernel, self._client.get(path_of("kernels", query)))

    def pull(self, name: str, *, source: str = "", on_event: OnEvent | None = None) -> Kernel:
        """Pull one.

        Args:
            name: an entry of the catalog; with ``source``, what to call it, empty for what the source suggests.
            source: ``oci:REFERENCE``, ``https://…#sha256=HEX`` or ``apt:PACKAGE``.
            on_event: gets the events of the work.
        """
        body = PullKernelBody(name, source)
        return typed(Kernel, self._client.long("POST", "/v1/kernels/pull", body=body, on_event=on_event))

    def push(self, query: str, reference: str, *, plain_http: bool = False, on_event: OnEvent | None = None) -> str:
        """Upload one to a registry; the digest of its manifest there."""
        body = PushKernelBody(reference, plain_http)
        path = path_of("kernels", query, "push")
        return str(self._client.long("POST", path, body=body, on_event=on_event)["digest"])

    def prune(self, *, unused: bool = False, dry_run: bool = False) -> Pruned:
        """Delete what is not needed; with ``unused`` also named ones that no machine uses."""
        return _prune(self._client, "kernel", unused=unused, dry_run=dry_run)

    def delete(self, query: str, *, force: bool = False) -> None:
        """Delete one that no machine uses; ``force`` removes its name now, its content with the last machine."""
        self._client.long("DELETE", path_of("kernels", query), {"force": True} if force else None)


def typed(cls: type[T], row: Mapping[str, Any]) -> T:
    """A row of the API as its model, without the fields that the API adds."""
    return from_plain(cls, row, tolerant=True)


def _prune(client: Client, noun: str, *, unused: bool, dry_run: bool) -> Pruned:
    body = PruneBody((noun,), unused, dry_run)
    return typed(Pruned, client.long("POST", "/v1/system/prune", body=body))
