"""The ``ImageTools`` port, implemented with the ext4 reader and writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from banger.config import Config
from banger.core.models import Image, Kernel
from banger.core.operation import Operation
from banger.core.ports import PushRequest, RootfsFacts
from banger.layout import Layout
from banger.posix.copying import copy_file


class LocalImageTools:
    """See the module. The heavy parts are imported by the work that needs them."""

    def __init__(self, layout: Layout, config: Config) -> None:
        self._layout = layout
        self._config = config

    def validate(self, rootfs: Path, operation: Operation) -> RootfsFacts:
        """Prove that it is a clean ext4 that nobody has attached."""
        from banger.rootfs.validate import validate_rootfs  # noqa: PLC0415

        facts = validate_rootfs(rootfs, operation)
        return RootfsFacts(facts.size_bytes, facts.disk_bytes, f"uuid:{facts.uuid}")

    def copy(self, source: Path, target: Path, operation: Operation) -> None:
        """Copy a file, sharing blocks where the file system can and keeping holes."""
        copy_file(source, target, operation)

    def seed(self, rootfs: Path, target: Path, operation: Operation) -> None:
        """Make a work seed."""
        from banger.rootfs.work_seed import make_work_seed  # noqa: PLC0415

        # Its own steps take milliseconds and have the names of those that made the image: nobody wants to see them.
        quiet = Operation(operation.kind, operation.subject)
        quiet.begin()
        forget = operation.token.on_cancel(quiet.cancel)
        try:
            make_work_seed(rootfs, target, operation=quiet)
        finally:
            forget()

    def commit(
        self, rootfs: Path, vm_dir: Path, target: Path, keep: Sequence[str], operation: Operation
    ) -> RootfsFacts:
        """Merge a base and a stopped VM's writable layer."""
        from banger.rootfs.commit import commit_rootfs  # noqa: PLC0415
        from banger.storage.contents import contents_of  # noqa: PLC0415

        disk = contents_of(vm_dir, rootfs)
        return commit_rootfs(
            rootfs, disk.path, target, copy=disk.copy, keep=keep, operation=operation, whole=disk.whole
        )

    def export(self, image: Image, kernel: Kernel | None, target: Path, form: str, operation: Operation) -> None:
        """Write an image to a file."""
        from banger.bundle import export  # noqa: PLC0415
        from banger.bundle.contents import BundleInput  # noqa: PLC0415

        directory = self._layout.image_dir(image.id)
        if form == "oci":
            export.export_oci_image(image, directory, target, operation)
        else:
            export.export_bundle(BundleInput(image, directory, kernel), target, operation)

    def push(self, image: Image, kernel: Kernel | None, push: PushRequest, operation: Operation) -> str:
        """Upload an image."""
        from banger.bundle import export  # noqa: PLC0415
        from banger.bundle.contents import BundleInput  # noqa: PLC0415

        layout, config, directory = self._layout, self._config, self._layout.image_dir(image.id)
        if push.form == "oci":
            return export.push_oci_image(
                layout, config, image, directory, push.reference, plain_http=push.plain_http, operation=operation
            )
        bundle = BundleInput(image, directory, kernel)
        return export.push_bundle(
            layout, config, bundle, push.reference, plain_http=push.plain_http, operation=operation
        )

    def push_kernel(self, kernel: Kernel, kernel_dir: Path, push: PushRequest, operation: Operation) -> str:
        """Upload a kernel."""
        from banger.oci.push_kernel import push_kernel  # noqa: PLC0415

        return push_kernel(
            self._layout,
            self._config,
            kernel,
            kernel_dir,
            push.reference,
            plain_http=push.plain_http,
            operation=operation,
        )
