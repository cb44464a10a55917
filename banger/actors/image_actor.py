"""The owner of one image name: pull and delete take turns in its mailbox."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from banger.actors.artifact_owner import ArtifactOwner
from banger.actors.messages import Command, DeleteImage, PullImage
from banger.core import clock
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.ports import BuiltImage, ImageRequest, ImageSource, ResolvedImage
from banger.host import publish


class ImageActor(ArtifactOwner):
    """Owns one image name."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Pull or delete."""
        match command:
            case PullImage():
                return self._pull(command, operation)
            case DeleteImage():
                return self._delete(command, operation)
        raise TypeError(f"an image's owner cannot do {command.verb}")

    def _pull(self, command: PullImage, operation: Operation) -> Image:
        # Recheck: whoever waited in the mailbox behind a pull finds its result here and does no work twice.
        present = self.services.store.images.by_name(command.name)
        if present is not None and not command.refresh:
            return present
        source = self._source(command.request)
        if present is not None and not present.managed:
            raise BangerError(
                ErrorKind.ALREADY_EXISTS, f'image "{command.name}" already exists', subject=command.name,
                cause="it is a registered image", hint=f"banger image delete {command.name}",
            )  # fmt: skip
        resolved = source.resolve(command.request, operation)
        if present is not None and present.digest == resolved.digest and present.platform == resolved.platform:
            operation.note(f"{command.name} is up to date")
            return present
        with publish.staging_dir(self.services.layout, "image-") as staged:
            crashpoint("image.pull:staging-made")
            built = self._reuse(resolved, staged, command.request) or source.build(resolved, staged, operation)
            crashpoint("image.pull:built")
            with operation.step("publish"):
                image = Image(
                    id=new_id(),
                    name=command.name,
                    source=resolved.source,
                    digest=built.digest,
                    platform=resolved.platform,
                    size_bytes=built.size_bytes,
                    disk_bytes=built.disk_bytes,
                    created_at=clock.now(),
                    owner_uid=command.owner_uid,
                    config=built.config,
                )
                built.rootfs.chmod(0o444)
                store = self.services.store
                self.publish(store.images, image, staged, self.services.layout.image_dir, store.vms.using_image)
        return image

    def _source(self, request: ImageRequest) -> ImageSource:
        for source in self.services.image_sources:
            if source.handles(request):
                return source
        raise BangerError(
            ErrorKind.USAGE,
            f'"{request.reference}" is no image reference',
            subject=request.reference,
            hint="write NAME:TAG, HOST/PATH:TAG or HOST/PATH@sha256:…",
        )

    def _reuse(self, resolved: ResolvedImage, staged: Path, request: ImageRequest) -> BuiltImage | None:
        """Content that is here under another name is linked, not built again."""
        twin = self.services.store.images.by_digest(resolved.digest)
        if twin is None or twin.platform != resolved.platform or request.size_bytes not in (0, twin.size_bytes):
            return None
        rootfs = staged / "rootfs.ext4"
        try:
            os.link(self.services.layout.image_rootfs(twin.id), rootfs)
        except OSError:
            return None  # deleted meanwhile, or a file system without links: build it
        return BuiltImage(rootfs, twin.size_bytes, twin.disk_bytes, resolved.config, twin.digest)

    def _delete(self, command: DeleteImage, operation: Operation) -> dict[str, Any]:
        store = self.services.store
        image = store.images.get(command.image_id)
        return self.delete(
            store.images, image, "image", store.vms.using_image, self.services.layout.image_dir, operation
        )
