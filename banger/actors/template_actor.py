"""The owner of one template: a VM of banger's own is booted, saved before anybody has used it, and deleted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from loguru import logger

from banger.actors.artifact_owner import ArtifactOwner
from banger.actors.messages import (
    Command,
    CreateVm,
    DeleteTemplate,
    DeleteVm,
    MakeTemplate,
    SavedVm,
    SaveVm,
)
from banger.actors.settling import wait_settled
from banger.actors.snapshot_rows import snapshot_row
from banger.actors.template_use import wish_for
from banger.actors.vm_teardown import recorded_identity
from banger.core import clock
from banger.core.cancel import Deadline
from banger.core.crashpoints import crashpoint
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Vm
from banger.core.names import new_id
from banger.core.operation import Operation
from banger.core.origin import disk_in, machine_in
from banger.core.progress import OperationEvent
from banger.core.templates import Template
from banger.posix.priority import lower_priority


class TemplateActor(ArtifactOwner):
    """Owns one template, by its key."""

    def handle(self, command: Command, operation: Operation) -> Any:
        """Dispatch."""
        match command:
            case MakeTemplate():
                return self._make(command, operation)
            case DeleteTemplate():
                return self._delete(command, operation)
        raise TypeError(f"a template's owner cannot do {command.verb}")

    def _make(self, command: MakeTemplate, operation: Operation) -> Template:
        store = self.services.store
        if there := store.templates.by_key(command.template_key):
            return there
        try:
            return self._made(command, operation)
        except BangerError as error:
            if error.kind is not ErrorKind.CANCELLED and (wish := store.wishes.get(command.template_key)):
                store.wishes.put(replace(wish, failed_at=clock.now()))
            raise

    def _made(self, command: MakeTemplate, operation: Operation) -> Template:
        with self.building("template", operation) as staged:
            crashpoint("template.make:staging-made")
            for directory in (disk_in(staged), machine_in(staged)):
                directory.mkdir(mode=0o700)
            saved = self._boot_and_save(command, staged, operation)
            snapshot = snapshot_row(saved, staged, "", command.wish.owner_uid)
            now = clock.now()
            made = Template(
                snapshot.id, command.template_key, snapshot.image_id, snapshot.kernel_id, snapshot, now, used_at=now
            )
            with operation.step("publish"):
                self.publish(self.services.store.templates, made, staged, self.services.layout.template_dir, operation)
        logger.info("template {} of {} was made", made.id, command.wish.spec.image)
        return made

    def _boot_and_save(self, command: MakeTemplate, staged: Path, operation: Operation) -> SavedVm:
        """Nobody else sees this VM, and it is gone in the end, also if the daemon does not survive this."""
        vm_id, name, wish = new_id(), f"template-{command.subject}", command.wish
        create = CreateVm(
            vm_id, name, wish.spec, wish.owner_uid, start=True, attended=True, makes_template=command.template_key
        )
        with self.services.vms.attendance.held(vm_id, name):
            try:
                vm = self._booted(create, operation)
                crashpoint("template.make:booted")
                wait_settled(self.services.vms, vm, operation)
                self._check_same(command, vm, operation)
                saved: SavedVm = self.ask_owner(SaveVm(vm.id, vm.name, staged), operation)
                crashpoint("template.make:saved")
                return saved
            finally:
                with suppress(BangerError):  # its own creation was undone
                    self.services.submit(DeleteVm(vm_id, name, force=True), Deadline.never()).wait()

    def _booted(self, create: CreateVm, operation: Operation) -> Vm:
        """Boot it at low priority: whatever else runs here is somebody's."""
        waiter = self.services.submit(create, operation.deadline)
        waiter.subscribe(operation.mirror)
        waiter.subscribe(self._lowering(create.vm_id))
        vm: Vm = waiter.wait(operation.token)
        return vm

    def _lowering(self, vm_id: str) -> Callable[[OperationEvent], None]:
        def lower(_: OperationEvent) -> None:
            identity = recorded_identity(self.services, vm_id)
            if identity is not None and identity.known:
                lower_priority(identity.pid)

        return lower

    def _check_same(self, command: MakeTemplate, vm: Vm, operation: Operation) -> None:
        """What was booted is what was wished for: names may mean something else by now, and programs be others."""
        image, kernel = self.services.store.images.get(vm.image_id), self.services.store.kernels.get(vm.kernel_id)
        now = None
        if image is not None and kernel is not None:
            alike = replace(vm, network="", spec=replace(vm.spec, cold=False))
            now = wish_for(self.services, alike, image, kernel, operation)
        if now is None or now.id != command.template_key:
            message = "what the template was wished for has changed meanwhile"
            raise BangerError(ErrorKind.CONFLICT, message, subject=command.subject)

    def _delete(self, command: DeleteTemplate, operation: Operation) -> None:
        templates = self.services.store.templates
        found = templates.get(command.template_id)
        if found is None:
            return
        with operation.step("delete template"):
            self.remove(templates, found, self.services.layout.template_dir)
        logger.info("template {} of {} was deleted: {}", found.id, found.snapshot.spec.image, command.why)
