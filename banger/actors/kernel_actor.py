"""The owner of one kernel name: pull, import, push and delete are serialised in its mailbox."""

from __future__ import annotations

from typing import Any

from banger.actors.artifact_owner import ArtifactOwner
from banger.actors.leases import leased
from banger.actors.messages import Command, DeleteKernel, PullKernel, PushKernel
from banger.core import clock, lookup
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Kernel
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.pins import tells_the_same
from banger.core.ports import KernelSource


class KernelActor(ArtifactOwner):
    """Owns one kernel name."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Pull (or import) or delete."""
        match command:
            case PullKernel():
                return self._pull(command, operation)
            case PushKernel():
                return self._push(command, operation)
            case DeleteKernel():
                return self._delete(command, operation)
        raise TypeError(f"a kernel's owner cannot do {command.verb}")

    def _pull(self, command: PullKernel, operation: Operation) -> Kernel:
        # Recheck: whoever waited in the mailbox behind a pull finds its result here and does no work twice.
        store = self.services.store
        present = store.kernels.by_name(command.name)
        if present is not None and not command.refresh:
            return present
        if present is not None and command.request.kernel_path:
            raise BangerError(
                ErrorKind.ALREADY_EXISTS,
                f'kernel "{command.name}" already exists',
                subject=command.name,
                hint=f"banger kernel delete {command.name}",
            )
        source = self._source(command)
        with self.building("kernel", operation) as staged:
            crashpoint("kernel.pull:staging-made")
            built = source.build(command.request, staged, operation)
            if present is not None and present.digest == built.digest and tells_the_same(present.source, built.source):
                operation.note(f"{command.name} is up to date")
                return present
            crashpoint("kernel.pull:built")
            with operation.step("publish"):
                kernel = Kernel(
                    id=new_id(),
                    name=command.name,
                    version=built.version,
                    source=built.source,
                    digest=built.digest,
                    platform=built.platform,
                    format=built.format,
                    size_bytes=built.size_bytes,
                    created_at=clock.now(),
                    owner_uid=command.owner_uid,
                    has_modules=built.has_modules,
                    has_initrd=built.has_initrd,
                    cmdline=built.cmdline,
                )
                directory_of, users = self.services.layout.kernel_dir, store.users_of_kernel
                self.publish_instead(store.kernels, kernel, staged, directory_of, users, operation)
        return kernel

    def _source(self, command: PullKernel) -> KernelSource:
        for source in self.services.artifacts.kernel_sources:
            if source.handles(command.request):
                return source
        raise BangerError(
            ErrorKind.USAGE,
            f'"{command.request.source}" is not a kernel source',
            subject=command.request.source,
            hint="banger catalog list",
        )

    def _push(self, command: PushKernel, operation: Operation) -> dict[str, Any]:
        kernel = self.services.store.kernels.get(command.kernel_id)
        if kernel is None:
            raise lookup.not_found(command.name, "kernel", [])
        directory = self.services.layout.kernel_dir(kernel.id)
        with leased(self.services.store.leases, operation):
            return {
                "digest": self.services.artifacts.image_tools.push_kernel(kernel, directory, command.push, operation)
            }

    def _delete(self, command: DeleteKernel, operation: Operation) -> dict[str, Any]:
        store = self.services.store
        kernel = store.kernels.get(command.kernel_id)
        return self.delete(
            store.kernels,
            kernel,
            "kernel",
            store.users_of_kernel,
            self.services.layout.kernel_dir,
            operation,
            force=command.force,
        )
