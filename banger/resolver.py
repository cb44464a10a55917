"""Resolving a typed name: an object that is there, or the command that pulls it."""

from __future__ import annotations

from banger.actors.messages import PullImage, PullKernel
from banger.catalog import Catalog, check_pin, resolve_image, resolve_kernel
from banger.config import Config
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel
from banger.core.names import check_artifact_name
from banger.core.ports import ImageRequest, KernelRequest
from banger.store import Store


class StoreResolver:
    """Looks in the store first, then in the catalog, then takes the name for a reference.

    A short name never means a prefix while it means something of its own: ``debian`` is the catalog's ``debian``
    even if only ``debian-12`` is in the store.
    """

    def __init__(self, store: Store, catalog: Catalog, config: Config) -> None:
        self._store = store
        self._catalog = catalog
        self._config = config

    def image(self, query: str, owner_uid: int) -> Image | PullImage:
        """The image, or how to get it.

        Raises:
            BangerError: ``usage``, ``not_found`` or ``ambiguous``; ``conflict`` for one that is here and is not what
                its name, or the catalog under its name, pins.
        """
        query = query or self._config.text("vm.image")
        images = self._store.images
        present = images.by_name(query)
        if present is not None:
            check_pin(query, self._catalog.image(query), present, "image")
        present = present or images.get(query)
        if present is not None:
            return present
        try:
            command = self.pull_image(query, owner_uid=owner_uid, refresh=False)
        except BangerError as unknown:
            return self._by_prefix(query, unknown)
        present = images.by_name(command.name)
        if present is not None:
            check_pin(command.name, None, present, "image")
        return present or command

    def _by_prefix(self, query: str, unknown: BangerError) -> Image:
        try:
            return self._store.images.find(query)
        except BangerError as error:
            if error.kind is ErrorKind.NOT_FOUND:
                raise unknown from None
            raise

    def kernel(self, query: str, owner_uid: int) -> Kernel | PullKernel:
        """The kernel, or how to get it. Raises ``not_found``, ``ambiguous`` or ``conflict``, as :meth:`image`."""
        query = query or self._config.text("vm.kernel")
        kernels = self._store.kernels
        present = kernels.by_name(query)
        if present is not None:
            check_pin(query, self._catalog.kernel(query), present, "kernel")
        present = present or kernels.get(query)
        if present is not None:
            return present
        if self._catalog.kernel(query) is not None:
            return self.pull_kernel(query, owner_uid=owner_uid, refresh=False)
        return kernels.find(query)

    def kernel_of(self, image: Image, owner_uid: int) -> Kernel | PullKernel:
        """The kernel that an image wants: the very content if its digest is known, else by name, else the default.

        One that is not here is pulled from where the image says, under a name that nothing else has.

        Raises:
            BangerError: ``not_found`` if it is not here and nobody knows where it is.
        """
        kernels, source = self._store.kernels, image.kernel_source
        if not (image.kernel or image.kernel_digest or source):
            return self.kernel("", owner_uid)
        exact = kernels.by_digest(image.kernel_digest) if image.kernel_digest else None
        if exact is not None:
            return exact
        named = kernels.by_name(image.kernel) if image.kernel else None
        if source and named is not None and image.kernel_digest:
            return self.pull_kernel(_another(image), source=source, owner_uid=owner_uid, refresh=False)
        if named is not None:
            return named
        if source:
            return self.pull_kernel(image.kernel, source=source, owner_uid=owner_uid, refresh=False)
        try:
            return self.kernel(image.kernel, owner_uid)
        except BangerError as error:
            message = f'image "{image.name or image.id}" wants the kernel "{image.kernel}", which is not here'
            hint = "name another one with --kernel, or banger kernel import"
            raise BangerError(error.kind, message, subject=image.kernel, cause=error.message, hint=hint) from error

    def pull_image(
        self,
        reference: str,
        *,
        name: str = "",
        platform: str = "",
        plain_http: bool = False,
        size_mib: int = 0,
        owner_uid: int = 0,
        refresh: bool = True,
    ) -> PullImage:
        """The command that pulls ``reference`` (a catalog name or an OCI reference) under ``name``."""
        location = resolve_image(reference, self._catalog)
        request = ImageRequest(location.source, platform, plain_http, size_mib << 20)
        chosen = check_artifact_name(name or location.name, "image")
        return PullImage(chosen, request, refresh, owner_uid)

    def pull_kernel(self, name: str, *, source: str = "", owner_uid: int = 0, refresh: bool = True) -> PullKernel:
        """The command that pulls a kernel.

        Args:
            name: an entry of the catalog; with ``source``, what to call the kernel, empty for what the source suggests.
            source: a name of the catalog, an OCI reference, ``https://…#sha256=HEX`` or ``apt:PACKAGE``.
            owner_uid: who asked.
            refresh: look whether the source has something new.

        Raises:
            BangerError: ``not_found`` or ``usage``.
        """
        location = resolve_kernel(source or name, self._catalog)
        chosen = (source and name) or location.name
        if not chosen:
            message = f'a kernel from "{source}" needs a name'
            raise BangerError(ErrorKind.USAGE, message, subject=source, hint="add --name NAME")
        return PullKernel(
            check_artifact_name(chosen, "kernel"), KernelRequest(source=location.source), refresh, owner_uid
        )


def _another(image: Image) -> str:
    """A name for an image's kernel where its own means another one here."""
    return f"{image.kernel[:200]}-{image.kernel_digest.removeprefix('sha256:')[:12]}"
