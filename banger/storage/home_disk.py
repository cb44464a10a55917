"""Home disks: ``/root`` of a VM on a separate disk, which can outlive the VM.

``homes/NAME.ext4`` is the disk; ``homes/NAME.json`` beside it says which VM has it, so that two never write to it at
once. The daemon is the only one of its installation, and the owners of two VMs are threads in it: one lock will do.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from banger.config import Config
from banger.core import codec, lookup
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, Vm
from banger.core.names import VM_NAME, check_home_name
from banger.core.operation import Operation
from banger.core.plan import CleanupStep
from banger.core.ports import Contribution, DeviceKind, Drive, HostObject, Mount, VmLedger
from banger.core.units import MIB
from banger.layout import Layout
from banger.posix.copying import copy_file
from banger.posix.files import sync_path
from banger.rootfs.build import Layer, build_rootfs
from banger.rootfs.resize import file_system_bytes, grow_disk
from banger.rootfs.tree_tar import ChunkStream, empty_tar
from banger.storage.files import HOME_SERIAL, make_whole, remove_file, unfinished

_KIND = "home"
_ROOT_MODE = 0o700
_MOUNTS = (Mount(HOME_SERIAL, "/root"),)


@dataclass(frozen=True, slots=True)
class Home:
    """A home disk.

    Attributes:
        vm_id: of the VM that has it; empty if it was kept and nobody has it.
        owner_uid: who may attach it.
        image: name of the image that it was made from.
        used: a guest has had it.
        broken: why its record cannot be read, or empty.
    """

    name: str
    vm_id: str
    owner_uid: int
    image: str
    used: bool = False
    broken: str = ""


class HomeDisk:
    """The capability, see the module. Besides its port it has what deleting a VM and listing homes need."""

    name = "home"

    def __init__(self, layout: Layout, config: Config) -> None:
        self._layout = layout
        self._config = config
        self._lock = threading.Lock()

    # -- the port --------------------------------------------------------------------------------------

    def applies(self, vm: Vm) -> bool:
        """True if the VM has one."""
        return bool(vm.spec.home)

    def devices(self, vm: Vm) -> Collection[DeviceKind]:  # noqa: ARG002
        """A disk."""
        return (Drive,)

    def mounts(self, vm: Vm) -> Collection[Mount]:  # noqa: ARG002
        """On ``/root``."""
        return _MOUNTS

    def prepare(self, vm: Vm, image: Image, ledger: VmLedger, operation: Operation) -> Contribution:
        """Claim the disk; make it if there is none of that name, else make it larger if that is requested.

        Raises:
            BangerError: ``usage`` for a bad name; ``conflict`` if another VM has it; ``denied`` if it is another
                user's; ``exhausted``; ``invalid`` if its file system is damaged.
        """
        name = vm.spec.home
        self.claim(vm, image.name)
        ledger.intend(_KIND, name)
        disk = self.path(name)
        wanted = (vm.spec.home_mib or self._config.number("vm.home_mib")) * MIB
        if not disk.exists():
            with operation.step("make home disk"):
                make_whole(disk, lambda new: self._make(new, image, wanted, operation), wanted)
        elif vm.spec.home_mib and file_system_bytes(disk) < wanted:
            with operation.step("grow home disk"):
                grow_disk(disk, wanted, operation.token)
        ledger.activate(_KIND, name, {"file": str(disk)})
        return Contribution(devices=(Drive(disk, HOME_SERIAL, read_only=False),), mounts=_MOUNTS)

    def hold(self, vm: Vm, ledger: VmLedger) -> None:
        """A disk tells nobody anything."""

    def started(self, vm: Vm, ledger: VmLedger) -> None:  # noqa: ARG002
        """From now on there may be something of the user's in it."""
        with self._lock:
            home = self._read(vm.spec.home)
            if home is not None and not home.used:
                self._write(replace(home, used=True))

    def adopted(self, vm: Vm, ledger: VmLedger) -> None:
        """Nothing of it ends before the VM does."""

    def cleanup(self, vm: Vm, ledger: VmLedger) -> Sequence[CleanupStep]:
        """Note that the VM's process has let go of the disk; it stays the VM's."""
        return [
            CleanupStep(f"home disk {handle.key} of {vm.name}", partial(ledger.strike, _KIND, handle.key))
            for handle in ledger.of(_KIND)
        ]

    def erase(self, vm: Vm) -> None:
        """Keep the home for the next VM, or delete it."""
        self.release(vm, keep=vm.keep_home)

    def used_bytes(self, vm: Vm) -> int:
        """What the home takes."""
        return self.occupied(vm.spec.home)

    def refresh(self, vms: Collection[Vm]) -> None:
        """Nothing is shared."""

    def host_objects(self) -> Sequence[HostObject]:
        """None: a home that no VM has is what its user kept, not a leak."""
        return ()

    # -- homes -----------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Where a home is; raises ``usage`` for what is no name."""
        return self._directory / f"{check_home_name(name)}.ext4"

    def homes(self) -> list[Home]:
        """All of them, by name; one whose record cannot be read is among them, broken."""
        return [home for record in sorted(self._directory.glob("*.json")) if (home := self._shown(record.stem))]

    def claim(self, vm: Vm, image_name: str = "") -> None:
        """Make the home the VM's until :meth:`release`, whether or not it exists. Idempotent.

        Raises:
            BangerError: ``conflict`` if another VM that still exists has it; ``denied``; ``usage``.
        """
        name = vm.spec.home
        self.path(name)
        with self._lock:
            home = self._read(name)
            if home is None:
                # A disk without a record had one that was lost or damaged: it may hold what its user wants to keep.
                self._write(Home(name, vm.id, vm.owner_uid, image_name, used=self.path(name).exists()))
                return
            if home.owner_uid != vm.owner_uid:
                raise BangerError(
                    ErrorKind.DENIED, f'the home disk "{name}" belongs to another user', subject=name,
                    cause=f"uid {home.owner_uid}", hint="choose another name: --home NAME",
                )  # fmt: skip
            if home.vm_id not in ("", vm.id) and self._layout.vm_dir(home.vm_id).exists():
                raise BangerError(
                    ErrorKind.CONFLICT, f'the home disk "{name}" is in use', subject=name,
                    cause=f"the VM {home.vm_id} has it",
                    hint=f"banger vm delete --keep-home {home.vm_id}, or choose another name: --home NAME",
                )  # fmt: skip
            if home.vm_id != vm.id:
                self._write(replace(home, vm_id=vm.id))

    def release(self, vm: Vm, *, keep: bool) -> None:
        """What deleting a VM does with its home: keep it for the next VM, or delete it. Idempotent.

        One that no guest ever had is not kept: it holds nothing, and was made by a start that failed.

        Call it when the VMM is gone and before the VM's directory is. A home that another VM has is not touched.
        """
        if not VM_NAME.match(vm.spec.home):  # none, or one that no start was ever given
            return
        disk = self.path(vm.spec.home)
        with self._lock:
            home = self._read(vm.spec.home)
            if home is None or home.vm_id != vm.id:
                return
            if keep and home.used and disk.exists():
                self._write(replace(home, vm_id=""))
            else:
                remove_file(disk)
                remove_file(self._record(home.name))

    def delete(self, name: str) -> None:
        """Delete a home that no VM has. Raises ``not_found``; ``conflict`` while a VM has it."""
        disk = self.path(name)
        with self._lock:
            home = self._read(name)
            if home is None:
                raise lookup.not_found(name, "home", [one.name for one in self.homes()])
            if home.vm_id and self._layout.vm_dir(home.vm_id).exists():
                raise BangerError(
                    ErrorKind.CONFLICT, f'the home disk "{name}" is in use', subject=name,
                    cause=f"the VM {home.vm_id} has it", hint=f"banger vm delete --keep-home {home.vm_id}",
                )  # fmt: skip
            remove_file(disk)
            remove_file(self._record(name))

    def occupied(self, name: str) -> int:
        """Bytes that a home takes on the host's disk."""
        try:
            return self.path(name).stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    # -- parts -----------------------------------------------------------------------------------------

    @property
    def _directory(self) -> Path:
        return self._layout.homes

    def _make(self, new: Path, image: Image, wanted: int, operation: Operation) -> None:
        seed = self._layout.image_seed(image)
        if seed.exists():
            copy_file(seed, new, operation)
            grow_disk(new, max(wanted, file_system_bytes(new)), operation.token)
        else:
            empty = Layer(stream=cast("BinaryIO", ChunkStream(iter([empty_tar(_ROOT_MODE)]))))
            build_rootfs([empty], new, operation=operation, size_bytes=wanted)
        new.chmod(0o600)

    def _record(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _shown(self, name: str) -> Home | None:
        try:
            return self._read(name)
        except BangerError as error:
            return Home(name, "", -1, "", used=True, broken=str(error))

    def _read(self, name: str) -> Home | None:
        record = self._record(name)
        try:
            return codec.from_plain(Home, json.loads(record.read_text()), tolerant=True)
        except FileNotFoundError:
            return None
        except (ValueError, BangerError) as error:
            raise BangerError(
                ErrorKind.INVALID, f'"{record}" is damaged', subject=name, cause=str(error),
                hint=f"remove it, if no VM has the home disk {name}",
            ) from error  # fmt: skip

    def _write(self, home: Home) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = self._record(home.name)
        new = unfinished(record)
        new.write_text(json.dumps(asdict(home)))
        sync_path(new)
        new.rename(record)
        sync_path(self._directory)
