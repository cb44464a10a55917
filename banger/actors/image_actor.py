"""The owner of one image name: everything that creates, changes or removes it is serialised in its mailbox."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from banger.actors.artifact_owner import ArtifactOwner
from banger.actors.disk_use import use_disk
from banger.actors.leases import leased
from banger.actors.messages import (
    Command,
    CommitVm,
    DeleteImage,
    ExportImage,
    PromoteImage,
    PullImage,
    PushImage,
    RegisterImage,
    TagImage,
)
from banger.core import clock, lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel, Vm
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.pins import tells_the_same
from banger.core.ports import BuiltImage, ImageRequest, ImageSource, ResolvedImage, RootfsFacts
from banger.core.units import MIB, format_size
from banger.core.wire.sizes import DefaultSizes

#: A registered file does not say what it was made for.
HOST_PLATFORM = "linux/amd64"


class ImageActor(ArtifactOwner):
    """Owns one image name."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Dispatch."""
        match command:
            case PullImage():
                return self._pull(command, operation)
            case RegisterImage():
                return self._register(command, operation)
            case PromoteImage():
                return self._promote(command, operation)
            case TagImage():
                return self._tag(command, operation)
            case CommitVm():
                return self._commit(command, operation)
            case ExportImage():
                return self._export(command, operation)
            case PushImage():
                return self._push(command, operation)
            case DeleteImage():
                return self._delete(command, operation)
        raise TypeError(f"an image's owner cannot do {command.verb}")

    # -- from elsewhere --------------------------------------------------------------------------------

    def _pull(self, command: PullImage, operation: Operation) -> Image:
        # Recheck: whoever waited in the mailbox behind a pull finds its result here and does no work twice.
        present = self.services.store.images.by_name(command.name)
        if present is not None and not command.refresh:
            return present
        if present is not None and not present.managed:
            raise self._taken("it is a registered image")
        source = self._source(command.request)
        resolved = source.resolve(command.request, operation)
        if present is not None and _is_same(present, resolved):
            if command.request.size_bytes in (0, present.size_bytes):
                operation.note(f"{command.name} is up to date")
                return present
            sizes = (format_size(present.size_bytes), format_size(command.request.size_bytes))
            operation.note(f"{command.name} is made again: it has {sizes[0]} and is to have {sizes[1]}")
        with self.building("image", operation) as staged:
            crashpoint("image.pull:staging-made")
            built = self._reuse(resolved, staged, command.request) or source.build(resolved, staged, operation)
            crashpoint("image.pull:built")
            self._seed(built.rootfs, staged, operation)
            crashpoint("image.pull:seeded")
            image = self._image(
                built, staged, source=resolved.source, platform=resolved.platform, config=built.config,
                owner_uid=command.owner_uid, kernel=resolved.kernel.name, kernel_digest=resolved.kernel.digest,
                kernel_source=resolved.kernel.source, defaults=resolved.defaults,
            )  # fmt: skip
            self._publish(image, staged, operation)
        return image

    def _source(self, request: ImageRequest) -> ImageSource:
        for source in self.services.artifacts.image_sources:
            if source.handles(request):
                return source
        raise BangerError(
            ErrorKind.USAGE,
            f'"{request.reference}" is not an image reference',
            subject=request.reference,
            hint="write NAME:TAG, HOST/PATH:TAG or HOST/PATH@sha256:…",
        )

    def _reuse(self, resolved: ResolvedImage, staged: Path, request: ImageRequest) -> BuiltImage | None:
        """Content that is here under another name is linked, not built again."""
        twin = self.services.store.images.by_digest(resolved.digest)
        if twin is None or not twin.managed or twin.platform != resolved.platform:
            return None
        size_bytes = request.size_bytes or self.services.config.number("image.size_mib") * MIB
        if size_bytes not in (0, twin.size_bytes) or not self._link(twin, staged):
            return None
        return BuiltImage(staged / "rootfs.ext4", twin.size_bytes, twin.disk_bytes, resolved.config, twin.digest)

    def _link(self, twin: Image, staged: Path) -> bool:
        """Share the files of another image; False if that can't be (deleted meanwhile, no links here)."""
        layout = self.services.layout
        try:
            os.link(layout.image_rootfs(twin), staged / "rootfs.ext4")
            if twin.has_seed:
                os.link(layout.image_seed(twin), staged / "seed.ext4")
        except OSError:
            return False
        return True

    # -- from this host --------------------------------------------------------------------------------

    def _register(self, command: RegisterImage, operation: Operation) -> Image:
        self._check_free()
        image_tools = self.services.artifacts.image_tools
        with operation.step("validate"):
            facts = image_tools.validate(Path(command.rootfs_path), operation)
        with self.building("register", operation) as staged:
            crashpoint("image.register:staging-made")
            if command.seed_path:
                image_tools.validate(Path(command.seed_path), operation)
                image_tools.copy(Path(command.seed_path), staged / "seed.ext4", operation)
            self._seed(Path(command.rootfs_path), staged, operation)
            crashpoint("image.register:seeded")
            image = self._image(
                facts, staged, source=f"file:{command.rootfs_path}", platform=HOST_PLATFORM, managed=False,
                rootfs_path=command.rootfs_path, kernel=command.kernel, owner_uid=command.owner_uid,
            )  # fmt: skip
            self._publish(image, staged, operation)
        return image

    def _promote(self, command: PromoteImage, operation: Operation) -> Image:
        present = self._present()
        if present.managed:
            operation.note(f"{command.name} is managed already")
            return present
        image_tools, source = self.services.artifacts.image_tools, Path(present.rootfs_path)
        with self.building("promote", operation) as staged:
            with operation.step("validate"):
                image_tools.validate(source, operation)
            with operation.step("copy"):
                image_tools.copy(source, staged / "rootfs.ext4", operation)
            crashpoint("image.promote:copied")
            with operation.step("make work seed"):
                if present.has_seed:
                    image_tools.copy(self.services.layout.image_seed(present), staged / "seed.ext4", operation)
                else:
                    image_tools.seed(staged / "rootfs.ext4", staged / "seed.ext4", operation)
            facts = image_tools.validate(staged / "rootfs.ext4", operation)
            image = self._image(
                facts, staged, source=present.source, owner_uid=present.owner_uid, **_inherited(present)
            )
            self._publish(image, staged, operation)
        return image

    def _tag(self, command: TagImage, operation: Operation) -> Image:
        twin = self.services.store.images.get(command.source_id)
        if twin is None:
            raise lookup.not_found(command.source_id, "image", [])
        present = self.services.store.images.by_name(command.name)
        if present is not None and present.digest == twin.digest:
            return present
        if present is not None:
            raise self._taken("with other content")
        with self.building("tag", operation) as staged:
            crashpoint("image.tag:staging-made")
            if twin.managed and not self._link(twin, staged):
                self.services.artifacts.image_tools.copy(
                    self.services.layout.image_rootfs(twin), staged / "rootfs.ext4", operation
                )
            image = replace(
                twin, id=new_id(), name=command.name, created_at=clock.now(), owner_uid=command.owner_uid,
                has_seed=(staged / "seed.ext4").exists(),
            )  # fmt: skip
            self._publish(image, staged, operation)
        return image

    def _commit(self, command: CommitVm, operation: Operation) -> Image:
        self._check_free()
        vm = self.services.store.vms.get(command.vm_id)
        if vm is None:
            raise lookup.not_found(command.vm_id, "vm", [])
        tools = self.services.artifacts.image_tools
        with self.building("commit", operation) as staged:
            rootfs = staged / "rootfs.ext4"

            def merge(stopped: Vm, directory: Path, work: Operation) -> tuple[Image, RootfsFacts]:
                base = self._base_of(stopped)
                below = self.services.layout.image_rootfs(base)
                return base, tools.commit(below, directory, rootfs, command.keep, work)

            base, facts = use_disk(self.ask_owner, vm, merge, operation)
            crashpoint("image.commit:merged")
            with operation.step("make work seed"):
                tools.seed(rootfs, staged / "seed.ext4", operation)
            image = self._image(
                facts, staged, source=f"commit:{vm.name}", owner_uid=command.owner_uid, **_inherited(base)
            )
            self._publish(image, staged, operation)
        return image

    def _base_of(self, vm: Vm) -> Image:
        base = self.services.store.images.get(vm.image_id)
        if base is None:
            raise BangerError(
                ErrorKind.CONFLICT, f'VM "{vm.name}" was not created completely', subject=vm.name,
                hint=f"banger vm delete {vm.name}",
            )  # fmt: skip
        return base

    # -- to elsewhere ----------------------------------------------------------------------------------

    def _export(self, command: ExportImage, operation: Operation) -> dict[str, Any]:
        image = self._suggesting(self._present(command.image_id), command.defaults)
        target = Path(command.target)
        self.services.artifacts.image_tools.export(image, self._kernel_of(image), target, command.form, operation)
        return {"path": command.target, "size_bytes": target.stat().st_size}

    def _push(self, command: PushImage, operation: Operation) -> dict[str, Any]:
        image = self._suggesting(self._present(command.image_id), command.defaults)
        with leased(self.services.store.leases, operation):
            return {
                "digest": self.services.artifacts.image_tools.push(
                    image, self._kernel_of(image), command.push, operation
                )
            }

    def _suggesting(self, image: Image, sizes: DefaultSizes) -> Image:
        """The image with sizes for its VMs that were asked for now; what was not stays."""
        kept = image.defaults
        return replace(
            image,
            defaults=DefaultSizes(
                sizes.cpus or kept.cpus, sizes.memory_mib or kept.memory_mib, sizes.disk_mib or kept.disk_mib
            ),
        )

    def _kernel_of(self, image: Image) -> Kernel | None:
        """The kernel that the image names, if it is here."""
        kernels = self.services.store.kernels
        by_digest = kernels.by_digest(image.kernel_digest) if image.kernel_digest else None
        if by_digest is not None or image.kernel_digest:
            return by_digest
        return kernels.by_name(image.kernel) if image.kernel else None

    def _delete(self, command: DeleteImage, operation: Operation) -> dict[str, Any]:
        store = self.services.store
        image = store.images.get(command.image_id)
        return self.delete(
            store.images,
            image,
            "image",
            store.users_of_image,
            self.services.layout.image_dir,
            operation,
            force=command.force,
        )

    # -- helpers ---------------------------------------------------------------------------------------

    def _image(self, facts: BuiltImage | RootfsFacts, staged: Path, **fields: Any) -> Image:
        """The row of what lies in ``staged``."""
        return Image(
            id=new_id(),
            name=self.key.name,
            digest=facts.digest,
            size_bytes=facts.size_bytes,
            disk_bytes=facts.disk_bytes,
            created_at=clock.now(),
            has_seed=(staged / "seed.ext4").exists(),
            **fields,
        )

    def _seed(self, rootfs: Path, staged: Path, operation: Operation) -> None:
        """Make the work seed unless there is one. An image whose home directory makes none is a good image still."""
        seed = staged / "seed.ext4"
        if seed.exists():
            return
        with operation.step("make work seed"):
            try:
                self.services.artifacts.image_tools.seed(rootfs, seed, operation)
            except BangerError as error:
                if error.kind is not ErrorKind.INVALID:
                    raise
                operation.note(f"no work seed: {error}")

    def _publish(self, image: Image, staged: Path, operation: Operation) -> None:
        store = self.services.store
        for file in staged.iterdir():
            file.chmod(0o444)
        with operation.step("publish"):
            self.publish_instead(
                store.images, image, staged, self.services.layout.image_dir, store.users_of_image, operation
            )

    def _present(self, image_id: str = "") -> Image:
        images = self.services.store.images
        image = images.get(image_id) if image_id else images.by_name(self.key.name)
        if image is None:
            raise lookup.not_found(self.key.name, "image", [])
        return image

    def _check_free(self) -> None:
        if self.services.store.images.by_name(self.key.name) is not None:
            raise self._taken()

    def _taken(self, cause: str = "") -> BangerError:
        name = self.key.name
        return BangerError(
            ErrorKind.ALREADY_EXISTS, f'image "{name}" already exists', subject=name, cause=cause,
            hint=f"banger image delete {name}",
        )  # fmt: skip


def _is_same(present: Image, resolved: ResolvedImage) -> bool:
    return (
        present.digest == resolved.digest
        and present.platform == resolved.platform
        and tells_the_same(present.source, resolved.source)
    )


def _inherited(base: Image) -> dict[str, Any]:
    """What an image made of another one takes over from it."""
    return {
        "platform": base.platform,
        "config": base.config,
        "kernel": base.kernel,
        "kernel_digest": base.kernel_digest,
        "kernel_source": base.kernel_source,
        "defaults": base.defaults,
    }
