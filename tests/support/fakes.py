"""Stand-ins for the outside world of the owners: real files and threads, gates where a test forces an order."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from banger.actors.base import Fact, OwnerActor
from banger.actors.driver_actor import DriverActor
from banger.actors.host_actor import HostActor
from banger.actors.image_actor import ImageActor
from banger.actors.kernel_actor import KernelActor
from banger.actors.messages import OwnerKey, OwnerKind, PullImage, PullKernel, ReconcileVm, WakeVm
from banger.actors.services import ArtifactServices, HostServices, Resolver, Services, Vmms, VmServices
from banger.actors.snapshot_actor import SnapshotActor
from banger.actors.template_actor import TemplateActor
from banger.actors.vm_actor import VmActor
from banger.bundle.snapshot_archive import LocalSnapshotArchives
from banger.config import Config
from banger.core import lookup
from banger.core.attendance import Attendance
from banger.core.backoff import Backoff
from banger.core.cancel import CancelToken
from banger.core.drivers import Drivers
from banger.core.errors import BangerError, ErrorKind
from banger.core.models import Image, ImageConfig, Kernel, ProcessIdentity, Vm
from banger.core.operation import Operation
from banger.core.operation_table import OperationTable
from banger.core.plan import CleanupStep
from banger.core.ports import (
    BuiltImage,
    BuiltKernel,
    Capability,
    Drive,
    Fill,
    GuestConfig,
    ImageRequest,
    ImageSource,
    ImageTools,
    KernelFormat,
    KernelRequest,
    KernelSource,
    Mount,
    PushRequest,
    ResolvedImage,
    RootfsFacts,
    VmLedger,
)
from banger.forwarding.doorbells import Doorbells
from banger.forwarding.forwarders import Forwarders, Reach
from banger.forwarding.host_ports import Taken
from banger.forwarding.publisher import Publisher, held_ports
from banger.guest.hostkey import HostKeyMaker
from banger.host.evidence.store import EvidenceStore
from banger.host.ledger import Ledger
from banger.host.uids import VmmUids, all_held
from banger.host.user_network import UserNetwork
from banger.layout import Layout
from banger.releases import vmm_releases
from banger.store import Store
from banger.supervisor import Supervisor
from tests.support.fake_guests import FakeGuests
from tests.support.fake_vmm import FakeVmm
from tests.support.waiting import eventually

WAIT_S = 10.0
#: Users of VMMs; the fakes remain who they are.
USERS = range(2_100_000_000, 2_101_000_000)


class Gate:
    """A point that work stops at until a test opens it; ``reached`` tells that it is there."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        if is_open:
            self._open.set()

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()

    def pass_through(self, operation: Operation) -> None:
        self.reached.set()
        while not self._open.wait(0.005):
            operation.token.raise_if_cancelled()

    def wait_reached(self) -> None:
        assert self.reached.wait(WAIT_S), "nobody came to the gate"


@dataclass
class FakeImageSource:
    """Builds a file with the reference as its content; ``digests`` moves tags, ``failures`` break builds."""

    gate: Gate = field(default_factory=Gate)
    builds: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    gates: dict[str, Gate] = field(default_factory=dict)

    def handles(self, request: ImageRequest) -> bool:
        return bool(request.reference)

    def resolve(self, request: ImageRequest, operation: Operation) -> ResolvedImage:
        with operation.step("resolve reference"):
            digest = self.digests.get(request.reference, f"sha256:{request.reference}")
            return ResolvedImage(request.reference, digest, "linux/amd64", ImageConfig(), request.size_bytes or 4096)

    def build(self, resolved: ResolvedImage, staging: Path, operation: Operation) -> BuiltImage:
        self.builds.append(resolved.source)
        with operation.step("fetch layers"):
            self.gates.get(resolved.source, self.gate).pass_through(operation)
            if self.failures:
                raise self.failures.pop(0)
            rootfs = staging / "rootfs.ext4"
            rootfs.write_text(resolved.digest)
        assert isinstance(resolved.token, int)
        return BuiltImage(rootfs, resolved.token, 4096, resolved.config, resolved.digest)


@dataclass
class FakeKernelSource:
    """Builds a kernel directory, in two halves with a gate between them."""

    gate: Gate = field(default_factory=Gate)
    builds: list[str] = field(default_factory=list)

    def handles(self, request: KernelRequest) -> bool:
        return bool(request.source)

    def build(self, request: KernelRequest, staging: Path, operation: Operation) -> BuiltKernel:
        self.builds.append(request.source)
        with operation.step("unpack kernel"):
            (staging / "vmlinuz").write_text(request.source)
            self.gate.pass_through(operation)
            (staging / "kernel.json").write_text("{}")
        return BuiltKernel(
            "6.1.0", request.source, f"sha256:{request.source}", "linux/amd64", "bzimage", 1, True, False, ""
        )


class FakeBoot:
    mounts: tuple[Mount, ...] = ()

    def toolbox(self, kernel_dir: Path, kernel_id: str, operation: Operation) -> Path:
        return kernel_dir / "vmlinuz"

    def initrd(self, toolbox: Path, config: GuestConfig, target: Path) -> None:
        target.write_bytes(toolbox.read_bytes())

    def kernel(self, kernel_dir: Path, kernel_format: KernelFormat, operation: Operation) -> Path:
        return kernel_dir / "vmlinuz"

    def kernel_fault(self, kernel_dir: Path) -> str:
        return ""

    def cmdline(self, *, verbose: bool = False) -> str:
        return "verbose" if verbose else "quiet"


class FakeImageTools:
    """Images are text files; making one copies text."""

    def __init__(self) -> None:
        self.gate = Gate()

    def validate(self, rootfs: Path, operation: Operation) -> RootfsFacts:
        try:
            text = rootfs.read_text(encoding="utf-8")
        except OSError as error:
            raise BangerError(ErrorKind.NOT_FOUND, f'cannot read "{rootfs}"', cause=str(error)) from error
        if text.startswith("broken"):
            raise BangerError(ErrorKind.INVALID, f'"{rootfs}" is not clean')
        return RootfsFacts(len(text), len(text), text)

    def copy(self, source: Path, target: Path, operation: Operation) -> None:
        self.gate.pass_through(operation)
        target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")

    def seed(self, rootfs: Path, target: Path, operation: Operation) -> None:
        target.write_text("seed", encoding="utf-8")

    def commit(self, rootfs: Path, vm_dir: Path, target: Path, keep: object, operation: Operation) -> RootfsFacts:
        self.gate.pass_through(operation)
        target.write_text(
            f"commit of {rootfs.read_text(encoding='utf-8')}{(vm_dir / 'disk').read_text()}", encoding="utf-8"
        )
        return self.validate(target, operation)

    def export(self, image: Image, kernel: Kernel | None, target: Path, form: str, operation: Operation) -> None:
        try:
            with target.open("x", encoding="utf-8") as file:
                file.write(f"{form} {image.digest}")
        except OSError as error:
            raise BangerError(ErrorKind.CONFLICT, f'cannot write "{target}"', cause=str(error)) from error

    def push(self, image: Image, kernel: Kernel | None, push: PushRequest, operation: Operation) -> str:
        return f"sha256:{image.name}"

    def push_kernel(self, kernel: Kernel, kernel_dir: Path, push: PushRequest, operation: Operation) -> str:
        return f"sha256:{kernel.name}"


class FakeStorage:
    name = "fake"
    root = "overlay"
    is_lost_when_host_is_full = False

    def __init__(self) -> None:
        self.fills: dict[str, Fill] = {}

    def create(self, vm_dir: Path, rootfs: Path, size_mib: int, operation: Operation) -> None:
        (vm_dir / "disk").touch()

    def attach(self, vm_id: str, vm_dir: Path, rootfs: Path, ledger: VmLedger) -> tuple[Drive, ...]:
        return (Drive(rootfs, "root", True), Drive(vm_dir / "disk", "data", False))

    def detach(self, vm_id: str, vm_dir: Path, ledger: VmLedger) -> tuple[CleanupStep, ...]:
        return ()

    def fill(self, vm_id: str, vm_dir: Path) -> Fill:
        return self.fills.get(vm_id, Fill(0, 0))

    def grow(self, vm_dir: Path, size_mib: int, operation: Operation) -> None:
        (vm_dir / "disk").write_text(str(size_mib))

    def freeze(self, vm_id: str, vm_dir: Path, into: Path, token: CancelToken) -> None:
        shutil.copy(vm_dir / "disk", into)
        (into / "disk").chmod(0o400)

    def fork(self, generation: Path, vm_dir: Path, operation: Operation) -> None:
        shutil.copyfile(generation / "disk", vm_dir / "disk")

    def remove(self, vm_dir: Path) -> None:
        (vm_dir / "disk").unlink(missing_ok=True)


class FakeWatcher:
    def __init__(self) -> None:
        self.watched: dict[str, ProcessIdentity] = {}

    def watch(self, vm_id: str, identity: ProcessIdentity) -> None:
        self.watched[vm_id] = identity

    def unwatch(self, vm_id: str) -> None:
        self.watched.pop(vm_id, None)


class FakeResolver:
    """Every name is the reference of an image, and of a kernel."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def image(self, query: str, owner_uid: int) -> Image | PullImage:
        return self._store.images.by_name(query) or PullImage(query, ImageRequest(query))

    def kernel_of(self, image: Image, owner_uid: int) -> Kernel | PullKernel:
        return self.kernel(image.kernel, owner_uid)

    def kernel(self, query: str, owner_uid: int) -> Kernel | PullKernel:
        query = query or "default"
        return self._store.kernels.by_name(query) or PullKernel(query, KernelRequest(source=query))


class ScriptedOwner(OwnerActor):
    """An owner whose work a test supplies, for the supervisor's own promises."""

    work: Callable[..., object] = staticmethod(lambda command, operation: None)

    def handle(self, command, operation):  # type: ignore[no-untyped-def]
        return type(self).work(command, operation)


class World:
    """A supervisor with real owners over fakes, in a directory of its own. ``restart`` is a daemon's restart."""

    backoff = Backoff(first_s=0.001, most_s=0.01)

    def __init__(
        self,
        home: Path,
        vmm: FakeVmm | None = None,
        owners: dict[OwnerKind, type[OwnerActor]] | None = None,
        image_sources: tuple[ImageSource, ...] = (),
        capabilities: tuple[Capability, ...] | Callable[[World], tuple[Capability, ...]] = (),
        image_tools: ImageTools | None = None,
    ) -> None:
        self.layout = Layout.from_environment({"BANGER_HOME": str(home)})
        self.layout.make_directories()
        self.images = FakeImageSource()
        self.image_sources = image_sources or (self.images,)
        self.kernels = FakeKernelSource()
        self.capabilities = capabilities
        self.kernel_sources: tuple[KernelSource, ...] = (self.kernels,)
        self.guests = FakeGuests()
        self.image_tools = FakeImageTools()
        self.chosen_image_tools = image_tools or self.image_tools
        self.watcher = FakeWatcher()
        self.vmm = vmm or FakeVmm()
        self.vmms = Vmms(Drivers("VMM driver", [self.vmm], self.vmm.name), self.vmm, self.vmm, self.vmm.name)
        self.owners = owners or {
            OwnerKind.IMAGE: ImageActor,
            OwnerKind.KERNEL: KernelActor,
            OwnerKind.VM: VmActor,
            OwnerKind.SNAPSHOT: SnapshotActor,
            OwnerKind.TEMPLATE: TemplateActor,
            OwnerKind.HOST: HostActor,
            OwnerKind.DRIVER: DriverActor,
        }
        self.make_resolver: Callable[[Store], Resolver] = FakeResolver
        self.start()

    def use_sources(self, images: tuple[ImageSource, ...], kernels: tuple[KernelSource, ...]) -> None:
        """Pull by these from now on."""
        self.image_sources, self.kernel_sources = images, kernels
        self.restart()

    def start(self) -> None:
        self.store = Store(self.layout.database)
        self.ledger = Ledger(self.store.handles, self.layout)
        self.evidence = EvidenceStore(self.layout)
        self.operations = OperationTable()
        storage = FakeStorage()
        mark = hashlib.sha256(str(self.layout.data).encode()).hexdigest()[:12]
        self.doorbells = Doorbells(self.rung)
        self.publisher = Publisher(Forwarders(mark, self.reach), self.ports_besides, self.doorbells)
        capabilities = self.capabilities(self) if callable(self.capabilities) else self.capabilities
        self.attendance = Attendance()
        self.supervisor = Supervisor(self._spawn, self.operations, self.backoff)
        self.services = Services(
            layout=self.layout,
            config=Config.load(self.layout.config_file, {"BANGER_RUN_TEMPLATES": "auto"}),
            store=self.store,
            submit=self.supervisor.submit,
            artifacts=ArtifactServices(
                self.image_sources,
                self.kernel_sources,
                self.chosen_image_tools,
                LocalSnapshotArchives(),
                vmm_releases(self.layout, Config.load(self.layout.config_file, {})),
            ),
            vms=VmServices(
                resolver=self.make_resolver(self.store),
                vmms=self.vmms,
                watcher=self.watcher,
                boot=FakeBoot(),
                guests=self.guests,
                authorized_key="ssh-ed25519 AAAA test",
                attendance=self.attendance,
                host_keys=HostKeyMaker(),
                doors=self.publisher,
            ),
            host=HostServices(
                ledger=self.ledger,
                evidence=self.evidence,
                storages=Drivers("storage driver", [storage], storage.name),
                capabilities=(UserNetwork(self.publisher, lambda: "pasta is not installed"), *capabilities),
                host_objects=(self.vmm.host_objects, *(one.host_objects for one in capabilities)),
                uids=VmmUids(USERS, mark, lambda: all_held(self.ledger.all())),
            ),
        )

    def _spawn(self, key: OwnerKey, generation: int, report: Callable[[Fact], None]):  # type: ignore[no-untyped-def]
        return self.owners[key.kind].start(key, generation, report, self.services)

    def reach(self, vm: Vm) -> Reach:
        """Nobody answers there, but the machine is one that could."""
        return Reach(self.layout.vm_run_dir(vm.id) / "running", 0, self.layout.vm_dir(vm.id) / "vmm.log")

    def ports_besides(self, vm_id: str) -> Taken:
        return held_ports(self.ledger.all(), {vm.id: vm.name for vm in self.store.vms.all()}, vm_id)

    def do(self, command):  # type: ignore[no-untyped-def]
        """Submit and wait."""
        waiter = self.supervisor.submit(command)
        assert waiter is not None
        return waiter.wait()

    def reconcile(self, vm: Vm) -> Vm | None:
        """Once the owner has said that what it did before is over: until then it would refuse."""

        def done() -> list[Vm | None]:
            try:
                return [self.do(ReconcileVm(vm.id, vm.name))]
            except BangerError as error:
                if error.message != f"{vm.name} is busy":
                    raise
                return []

        (result,) = eventually(done, 30, f"the owner of {vm.name} is idle")
        return result

    def vm(self, name: str) -> Vm:
        found = self.store.vms.by_name(name)
        if found is None:
            raise lookup.not_found(name, "vm", [])
        return found

    def rung(self, vm_id: str) -> None:
        """Somebody came to a published port of a suspended VM."""
        if (vm := self.store.vms.get(vm_id)) is not None:
            self.supervisor.submit(WakeVm(vm_id, vm.name))

    def stop(self) -> None:
        self.doorbells.close()
        assert self.supervisor.shutdown(WAIT_S), "an owner did not end"
        self.store.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def leftovers(self) -> list[str]:
        """What lies in staging and trash, and directories that no row knows."""
        store = self.store
        tables = (store.images, store.kernels, store.snapshots, store.templates, store.vms)
        known = {row.id for table in tables for row in table.all()}
        kept = ("images", "kernels", "snapshots", "templates", "vms")
        roots = [self.layout.data / name for name in kept] + [self.layout.run / "vms"]
        left = [str(path) for root in (self.layout.staging, self.layout.trash) for path in root.iterdir()]
        left += [str(path) for root in roots for path in root.iterdir() if path.name not in known]
        return left
