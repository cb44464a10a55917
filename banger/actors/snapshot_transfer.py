"""Snapshots that come from elsewhere, or go there: what they need is named, and compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from banger.actors.orphans import occupied
from banger.actors.services import Services
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Kernel, Snapshot
from banger.core.names import check_vm_name, new_id
from banger.core.operation import Operation
from banger.core.origin import Origin, disk_in, machine_in
from banger.core.ports import Basis, SnapshotRecord
from banger.core.wire.vm_checks import check_spec

_ID = re.compile(r"[0-9a-f]{0,32}\Z")


def export_snapshot(services: Services, snapshot: Snapshot, target: Path, operation: Operation) -> None:
    """Write a snapshot that somebody keeps to a new file. Raises as :class:`banger.core.ports.SnapshotArchives`."""
    image, kernel = services.store.images.get(snapshot.image_id), services.store.kernels.get(snapshot.kernel_id)
    assert image is not None  # the store keeps them as long as the snapshot is there
    assert kernel is not None
    with operation.step("sum up image and kernel"):
        sums = _sums(services, image, kernel, operation)
    record = SnapshotRecord(
        snapshot=snapshot,
        image=Basis(image.name, image.source, image.digest),
        kernel=Basis(kernel.name, kernel.source, kernel.digest),
        sums=sums,
    )
    services.artifacts.snapshot_archives.export(record, services.layout.snapshot_dir(snapshot.id), target, operation)


def needs_of(services: Services, source: Path, operation: Operation) -> tuple[SnapshotRecord, Image, Kernel]:
    """What an archive says, and the image and the kernel that it needs, which are here.

    Raises:
        BangerError: ``not_found`` for what is not, with how to get it; ``invalid`` for an archive that makes no sense,
            or an image or a kernel that is not byte for byte what the machine has seen.
    """
    record = services.artifacts.snapshot_archives.read(source)
    _check(services, record, source)
    image = services.store.images.by_digest(record.image.digest)
    if image is None:
        raise _missing("image", record.image, source)
    kernel = services.store.kernels.by_digest(record.kernel.digest)
    if kernel is None:
        raise _missing("kernel", record.kernel, source)
    with operation.step("compare image and kernel"):
        here = _sums(services, image, kernel, operation)
    if other := sorted(what for what in {*here, *record.sums} if here.get(what) != record.sums.get(what)):
        raise BangerError(
            ErrorKind.INVALID, f'"{source}" needs an image and a kernel of the very same bytes', subject=str(source),
            cause=f"{' and '.join(other)} here differ from those that its machine has read from",
            hint=f"bring the image as it is there: banger image export {record.image.name or 'IMAGE'} FILE, "
            "and here: banger image pull bundle-file:FILE",
        )  # fmt: skip
    return record, image, kernel


def taken_in(record: SnapshotRecord, image: Image, kernel: Kernel, name: str, owner_uid: int, staged: Path) -> Snapshot:
    """The row of a snapshot that was unpacked into ``staged``. Raises ``invalid`` if a part of it is missing."""
    snapshot = replace(
        record.snapshot,
        id=new_id(),
        name=name,
        image_id=image.id,
        kernel_id=kernel.id,
        owner_uid=owner_uid,
        is_checkpoint=False,
        memory_bytes=occupied(machine_in(staged)),
        disk_bytes=occupied(disk_in(staged)),
    )
    machine = Origin(snapshot, staged).machine
    needed = [] if machine is None else [machine.memory, machine.devices]
    if not disk_in(staged).is_dir() or not all(path.is_file() for path in needed):
        raise BangerError(ErrorKind.INVALID, f'the archive of snapshot "{name}" lacks a part of it', subject=name)
    return snapshot


def _check(services: Services, record: SnapshotRecord, source: Path) -> None:
    """What is in it becomes a row of ours."""
    snapshot = record.snapshot
    try:
        check_spec(snapshot.spec)
        check_vm_name(snapshot.vm_name)
        services.host.storages.named(snapshot.storage)
        if not (_ID.match(snapshot.vm_id) and _ID.match(snapshot.parent_id)):
            raise BangerError(ErrorKind.INVALID, "its ids are none")  # noqa: TRY301  # told as the others
        if snapshot.memory_mib not in (0, snapshot.spec.memory_mib):
            raise BangerError(ErrorKind.INVALID, "its machine has another size than its VM")  # noqa: TRY301
    except BangerError as error:
        message = f'"{source}" holds a snapshot that this banger cannot use'
        raise BangerError(ErrorKind.INVALID, message, subject=str(source), cause=str(error)) from error


def _sums(services: Services, image: Image, kernel: Kernel, operation: Operation) -> Mapping[str, str]:
    """Of the files that a machine reads from: a guest remembers what it has seen of them."""
    files = {"the image": services.layout.image_rootfs(image)}
    modules = services.layout.kernel_dir(kernel.id) / "modules.ext4"
    if modules.exists():
        files["the kernel's modules"] = modules
    return services.artifacts.snapshot_archives.sums(files, operation)


def _missing(noun: str, basis: Basis, source: Path) -> BangerError:
    return BangerError(
        ErrorKind.NOT_FOUND, f'"{source}" needs the {noun} "{basis.name or basis.digest}", which is not here',
        subject=basis.name, cause=f"{basis.digest}, from {basis.source}" if basis.source else basis.digest,
        hint=f"banger {noun} pull {basis.name}" if basis.name else f"banger {noun} list",
    )  # fmt: skip
